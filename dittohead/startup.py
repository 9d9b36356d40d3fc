"""Wait, at the start, for what may go away by itself: a full disk, a database that is down, a late mount."""

from __future__ import annotations

import asyncio
import socket

from dittohead import web
from dittohead.config.loader import Config
from dittohead.model.errors import DittoheadError, StationMissing, StoreError, TransientError
from dittohead.system import log, sd_notify
from dittohead.system.machine_faults import PASSING
from dittohead.system.waiting import event_or_time
from dittohead.toolkit.backoff import wait_s

#: Between two tries, doubled each time. Seconds.
_FIRST_S, _MOST_S = 1.0, 15.0

#: The service manager is asked for more time this often, for a bit more than twice as long. Seconds.
_EXTEND_S = 5.0


def is_passing(error: BaseException) -> bool:
    """Tell whether a fault of the start may go away by itself; what is wrongly configured does not."""
    if isinstance(error, StoreError):
        return error.passing
    if isinstance(error, OSError):
        return error.errno in PASSING or isinstance(error, socket.gaierror)
    return isinstance(error, StationMissing | TransientError)


class Starting:
    """The waiting between tries to start."""

    def __init__(self, config: Config, stop: asyncio.Event, patience_s: float | None = None) -> None:
        """Args: patience_s: how long is waited in all; None: forever."""
        self._config, self._stop, self._patience_s = config, stop, patience_s
        self._failures = 0
        self._said = ""

    async def wait(self, error: Exception) -> None:
        """Wait before the next try, or until told to stop; say why, to the log, systemd and `/healthz`.

        Raises: the error, where the patience is at its end.
        """
        self._failures += 1
        wait = wait_s(self._failures, first_s=_FIRST_S, most_s=_MOST_S)
        if self._patience_s is not None:
            if self._patience_s <= 0:
                raise error
            wait = min(wait, self._patience_s)
            self._patience_s -= wait
        reason = _words(error)
        if str(reason) != self._said:
            self._said = str(reason)
            log.get().error(log.DAEMON_WAITING, error=self._said)
        sd_notify.status(f"waiting to start: {reason}")
        async with web.waiting(self._config.settings.http, reason.what):
            await self._sleep(wait)

    async def _sleep(self, seconds: float) -> None:
        # Not ready: the unit stays "activating", and whatever is ordered after it waits, as it should.
        # Its start must then not be given up: TimeoutStartSec= counts from the last of these.
        while seconds > 0 and not self._stop.is_set():
            sd_notify.extend_timeout(2.5 * _EXTEND_S)
            await event_or_time(self._stop, min(seconds, _EXTEND_S))
            seconds -= _EXTEND_S


def _words(error: Exception) -> DittoheadError:
    if isinstance(error, DittoheadError):
        return error
    assert isinstance(error, OSError)  # noqa: S101  # see is_passing
    return DittoheadError(str(error.strerror or error), where=str(error.filename or ""))
