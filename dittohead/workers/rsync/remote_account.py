"""The account on a host that deliveries go to: why it refuses them, how much room it has."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from dittohead.model.errors import StepError, TargetError
from dittohead.model.units import size
from dittohead.system.process import Completed, run
from dittohead.workers.rsync.options import SSH, Destination, RsyncOptions, ssh_arguments
from dittohead.workers.rsync.ssh_messages import DeliveryPlace, account_says

#: The agent that holds keys is for ssh alone; no other program learns of it.
AGENT = ("SSH_AUTH_SOCK",)
#: The exit statuses of an rsync that could not begin, or was left alone by the other side.
_MAY_BE_ASKED = (2, 5, 11, 12, 127, 255)
#: Of those, of one that may have written before.
_ENDED_WRITING = (11,)
#: How long an answer may take after the connection.
_ANSWER_S = 10.0
#: A line of `df -Pk`. Source: POSIX, df, STDOUT.
_DF = re.compile(r".*\s(?P<total>\d+)\s+\d+\s+(?P<free>-?\d+)\s+\d+%\s+(?P<mount>/.*)")


@dataclass(frozen=True, kw_only=True)
class RemoteSpace:
    """The file system that a folder on a host lies on."""

    mount: str
    capacity: int  #: bytes of the whole
    free: int  #: bytes that the account may still use

    @property
    def used(self) -> float:
        """The part in use, 0 to 1."""
        return 1 - max(self.free, 0) / max(self.capacity, 1)


def way_to(options: RsyncOptions, place: Destination, again: str = "") -> DeliveryPlace:
    """Return what a hint has to name of the place of a delivery.

    Args:
        place: the host and the path there.
        again: the command that tries again; "" where work goes on by itself.
    """
    ssh = options.ssh
    return DeliveryPlace(
        where=place.argument,
        again=again,
        login=place.host,
        path=place.path,
        port=ssh.port,
        identity=ssh.identity or "",
        known_hosts=ssh.known_hosts or "",
    )


class Account:
    """An account on a host, asked by ssh as rsync would ask it.

    Args:
        place: where is delivered to there.
        env: the environment for ssh.
    """

    def __init__(self, options: RsyncOptions, place: Destination, env: Mapping[str, str]) -> None:
        self._options, self._place, self._env = options, place, env

    async def why(self, ended: Completed, wanted: int, way: DeliveryPlace) -> StepError | None:
        """Return why an rsync failed whose own words do not say it; None: it cannot be told.

        An rsync that dies at the remote system, of a full disk too, may take its words with it.

        Args:
            wanted: bytes that were to be delivered.
        """
        if ended.returncode not in _MAY_BE_ASKED:
            return None
        if ended.returncode in _ENDED_WRITING and (found := await self.space()) is not None:
            if found.free >= wanted:
                return None
            return TargetError(
                f"the target is full: {size(found.free)} free, {size(wanted)} wanted",
                where=way.where,
                hint="Make room there; work goes on by itself",
                full=True,
                apart=True,
            )
        try:
            asked = await self._asked("true")
        except TimeoutError:
            return None
        return account_says(asked.returncode, asked.stdout, asked.stderr, way)

    async def may_write(self) -> bool | None:
        """Tell whether the folder may be written; None where that cannot be told."""
        path = shlex.quote(self._place.path)
        try:
            ended = await self._asked(f"test ! -d {path} || test -w {path}")
        except TimeoutError:
            return None
        return {0: True, 1: False}.get(ended.returncode) if not ended.stderr else None

    async def space(self) -> RemoteSpace | None:
        """Return how much room is there; None where it may run no commands, or does not answer."""
        path = shlex.quote(self._place.path)
        above = shlex.quote(self._place.path.rpartition("/")[0] or "/")
        try:
            ended = await self._asked(f"df -Pk -- {path} || df -Pk -- {above}")
        except TimeoutError:
            return None
        lines = ended.stdout.decode("utf-8", "replace").splitlines()
        match = _DF.fullmatch(lines[-1]) if ended.returncode == 0 and len(lines) > 1 else None
        if match is None:
            return None
        return RemoteSpace(
            mount=match["mount"], capacity=int(match["total"]) * 1024, free=int(match["free"]) * 1024
        )

    async def _asked(self, command: str) -> Completed:
        """Run a command there. Raises: TimeoutError."""
        ssh = self._options.ssh
        return await run(
            [SSH.path(), *ssh_arguments(ssh), "--", self._place.host, command],
            env=self._env,
            timeout_s=ssh.connect_timeout + _ANSWER_S,
        )
