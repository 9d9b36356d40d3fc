"""Folders one after the other over one connection, which is made again when it breaks."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

from dittohead_send import local, remote, ssh
from dittohead_send.errors import TEMPORARY, UNAVAILABLE, ConnectionGone, SendError
from dittohead_send.progress import Progress
from dittohead_send.remote import Remote
from dittohead_send.ssh import Login
from dittohead_send.upload import Outcome, Upload
from dittohead_send.words import duration

#: Waits between attempts: the first, and the longest. Seconds.
_FIRST_S, _LONGEST_S = 1.0, 60.0


@dataclass(kw_only=True)
class Link:
    """The way to the server."""

    login: Login
    progress: Progress
    jobs: int  #: sessions
    patience_s: float  #: how long it is tried to connect again, without anything confirmed meanwhile
    _remote: Remote | None = field(default=None, repr=False)
    _was_there: bool = False

    async def remote(self) -> Remote:
        """Return the connection; make it where there is none. Raises: SendError; ConnectionGone."""
        if self._remote is None:
            connection = await ssh.connect(self.login)
            try:
                self._remote = await remote.opened(connection, str(self.login.target), self.jobs)
            except BaseException:
                connection.abort()
                raise
            self._was_there = True
        return self._remote

    async def close(self) -> None:
        """End it."""
        if self._remote is not None:
            broken, self._remote = self._remote, None
            await broken.close()

    async def send(self, upload: Upload) -> Outcome:
        """Send a folder, on as many connections as it takes.

        Raises: SendError: also when nothing could be sent for as long as the patience lasts.
        """
        loop = asyncio.get_running_loop()
        since, wait, confirmed = loop.time(), _FIRST_S, -1
        while True:
            try:
                return await upload.attempt(await self.remote())
            except ConnectionGone as gone:
                await self.close()
                if self.progress.sent > confirmed and self._was_there:
                    since, wait, confirmed = loop.time(), _FIRST_S, self.progress.sent
                elif loop.time() - since + wait > self.patience_s or not self._was_there:
                    raise self._given_up(gone) from gone
                self.progress.tell(f"connection lost ({gone}); trying again in {duration(wait)}")
                await asyncio.sleep(wait * random.uniform(0.8, 1.2))  # noqa: S311  # not for secrets
                wait = min(wait * 2, _LONGEST_S)
                self.progress.restart()
            except SendError:
                if self._remote is not None and self._remote.connection.is_closed():
                    await self.close()
                raise

    def _given_up(self, gone: ConnectionGone) -> SendError:
        where = str(self.login.target)
        if not self._was_there:
            return SendError(
                f"no connection ({gone})",
                where=where,
                hint="Check the name, the port and the network",
                status=UNAVAILABLE,
            )
        return SendError(
            f"the connection was lost ({gone})",
            where=where,
            hint="Type the same command again; it continues where it stopped",
            status=TEMPORARY,
        )


async def send_folder(link: Link, upload: Upload) -> Outcome:
    """Send one folder, which no other run of this program sends meanwhile. Raises: SendError."""
    with local.locked(upload.listing.identity()):
        return await link.send(upload)
