"""Logging: structlog, the names of all log events, JSON for machines and colour for people."""

from __future__ import annotations

import atexit
import logging
import os
import sys
from collections.abc import Callable
from typing import Any, Final

import structlog

from dittohead.system.log_stream import LogStream

# Event names are `noun.past_verb` and stable: people search for them.
DAEMON_STARTED: Final = "daemon.started"
DAEMON_STOPPING: Final = "daemon.stopping"
DAEMON_STOPPED: Final = "daemon.stopped"
BATCH_OVER: Final = "batch.over"
CLOCK_SET_BACK: Final = "clock.set_back"
DAEMON_SWEPT: Final = "daemon.swept"
CONFIG_LOADED: Final = "config.loaded"
CONFIG_REFUSED: Final = "config.refused"
CONFIG_DOUBTED: Final = "config.doubted"
WATCH_ARMED: Final = "watch.armed"
WATCH_LOST: Final = "watch.lost"
WATCH_STALE: Final = "watch.stale_upload"
WATCH_IGNORED: Final = "watch.ignored"
CLAIM_HELD: Final = "claim.held"
CLAIM_REFUSED: Final = "claim.refused"
CLAIM_FAILED: Final = "claim.failed"
CLAIM_ADOPTED: Final = "claim.adopted"
FILE_WRAPPED: Final = "file.wrapped"  # a folder was made of a file in the inbox
JOB_CLAIMED: Final = "job.claimed"
JOB_PAUSED: Final = "job.paused"
JOB_FROZEN: Final = "job.frozen"
JOB_THAWED: Final = "job.thawed"
JOB_REOPENED: Final = "job.reopened"
JOB_CANCELLED: Final = "job.cancelled"
JOB_DISMISSED: Final = "job.dismissed"
FILE_REPLACED: Final = "file.replaced"
COLLECTION_CLAIMED: Final = "collection.claimed"
COLLECTION_BESIDE: Final = "collection.beside"
COLLECTION_ENDED: Final = "collection.ended"
JOB_GONE: Final = "job.gone"
JOB_FINISHED: Final = "job.finished"
ROW_DAMAGED: Final = "row.damaged"
JOB_STUCK: Final = "job.stuck"
JOB_MOVED: Final = "job.moved"
JOB_SUPERSEDED: Final = "job.superseded"
JOB_CRASHED: Final = "job.crashed"
JOB_SUSPECTED: Final = "job.suspected"
JOB_OVERLOOKED: Final = "job.overlooked"
JOB_CHANGED_LATE: Final = "job.changed_late"
JOB_UNSEEN: Final = "job.not_looked_at"
JOB_CHECKED: Final = "job.checked"
JOB_DAMAGED: Final = "job.damaged"
JOB_REMOVED: Final = "job.folder_removed"
JOB_STAYS: Final = "job.folder_stays"
STEP_STARTED: Final = "step.started"
STEP_FINISHED: Final = "step.finished"
STEP_WAITING: Final = "step.waiting"
STEP_RETRIED: Final = "step.retried"
STEP_FAILED: Final = "step.failed"
TARGET_PAUSED: Final = "target.paused"
TARGET_RESUMED: Final = "target.resumed"
TARGET_NEARLY_FULL: Final = "target.nearly_full"
TARGET_FULL: Final = "target.full"
TARGET_TRIED: Final = "target.tried"
MACHINE_SHORT: Final = "machine.short"
NOTIFY_SENT: Final = "notify.sent"
NOTIFY_FAILED: Final = "notify.failed"
NOTIFY_GIVEN_UP: Final = "notify.given_up"
NOTIFY_GATHERED: Final = "notify.gathered"
NOTIFY_DISABLED: Final = "notify.disabled"
NOTIFY_ENABLED: Final = "notify.enabled"
NOTIFY_NO_ADDRESS: Final = "notify.no_address"
NOTIFY_TEMPLATE: Final = "notify.template_failed"
PING_FAILED: Final = "ping.failed"
PING_RESTORED: Final = "ping.restored"
OUTSIDE_UNDONE: Final = "outside.undone"
OUTSIDE_LEFT: Final = "outside.left"
SOURCE_LOOKED: Final = "source.looked"
SOURCE_FAILED: Final = "source.failed"
SOURCE_HELD: Final = "source.held"
SOURCE_REFUSED: Final = "source.refused"
SOURCE_GONE: Final = "source.gone"
SOURCE_CHANGED: Final = "source.changed"
SOURCE_DROPPED: Final = "source.dropped"
SOURCE_FOLLOWED: Final = "source.followed"
SOURCE_SETTLED: Final = "source.settled"
SOURCE_UNREADABLE: Final = "source.unreadable"
SOURCE_STOPPED: Final = "source.stopped"
SOURCE_ASKED: Final = "source.asked"
SOURCE_QUEUE_FULL: Final = "source.queue_full"
SOURCE_REQUEST_LOST: Final = "source.request_lost"
SOURCE_LIST_UNREAD: Final = "source.list_unread"
SOURCE_DETAILS_UNREAD: Final = "source.details_unread"
SOURCE_LIST_DOUBTFUL: Final = "source.list_doubtful"
SOURCE_RENEWAL_FAILED: Final = "source.renewal_failed"
SOURCE_CRASHED: Final = "source.crashed"
BOARD_ASKED: Final = "board.asked"
BOARD_REFUSED: Final = "board.refused"
BOARD_REPAIRED: Final = "board.repaired"
STRAY_MOVED: Final = "stray.moved"
STATION_MISSING: Final = "station.missing"
STATION_MADE: Final = "station.made"
STATION_BACK: Final = "station.back"
LOCK_LOST: Final = "lock.lost"
DAEMON_WAITING: Final = "daemon.waiting"
STORE_REBUILT: Final = "store.rebuilt"
REBUILD_UNREADABLE: Final = "store.unreadable_receipt"
HTTP_LOGGED_IN: Final = "http.logged_in"
HTTP_LOGGED_OUT: Final = "http.logged_out"
HTTP_LOGIN_FAILED: Final = "http.login_failed"
HTTP_CROWDED: Final = "http.crowded"
HTTP_HEADER_REFUSED: Final = "http.header_refused"
HTTP_TOKENS_REFUSED: Final = "http.tokens_refused"
HTTP_CRASHED: Final = "http.crashed"
HTTP_UPLOADED: Final = "http.uploaded"
REQUEST_CRASHED: Final = "request.crashed"
REQUEST_ANSWERED: Final = "request.answered"
TASK_CRASHED: Final = "daemon.task_crashed"
LOG_DROPPED: Final = "log.dropped"


def configure(*, level: str = "info", json: bool | None = None) -> None:
    """Set up structlog for this process, writing to standard error.

    Args:
        level: "debug", "info", "warning" or "error".
        json: one JSON object a line; by default when standard error is not a terminal.
    """
    stream = sys.stderr or open(os.devnull, "w")  # noqa: SIM115  # it may have been closed before our start
    as_json = not stream.isatty() if json is None else json
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso" if as_json else "%H:%M:%S", utc=as_json),
    ]
    if as_json:
        processors += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        processors.append(_pretty())
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=False,
    )


def _pretty() -> Any:
    # Not Rich's tracebacks, which show what local variables hold: passwords among it.
    plain = structlog.dev.plain_traceback
    return structlog.dev.ConsoleRenderer(colors=True, pad_event_to=20, exception_formatter=plain)


def get() -> Any:
    """Return the logger; context (job, name, step) comes from `bind`."""
    return structlog.get_logger()


bind = structlog.contextvars.bound_contextvars


def write_in_thread(dropped: Callable[[int], None]) -> None:
    """From now on let a thread write standard error: for the daemon, whose loop must wait for no reader.

    All that is written there goes this way, tracebacks too. At the process's end what is left is
    written within two seconds, or given up.

    Args:
        dropped: is told, in that thread, how many lines were not written, as soon as it can write again.
    """
    stream = LogStream(None if sys.stderr is None else sys.stderr.fileno(), dropped)
    sys.stderr = stream
    atexit.register(stream.finish)
