"""What every handler may use: the store's read door, the queue for requests, and what is true only now."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from dittohead.admin.request_queue import RequestQueue
from dittohead.config.loader import Config
from dittohead.engine.metrics import Metrics
from dittohead.folders.stations import Stations
from dittohead.model.records import Job
from dittohead.model.shown import LiveStatus, ShownReport
from dittohead.store import Store


@dataclass(frozen=True)
class AppState:
    """One daemon, as its pages and its API see it."""

    store: Store  #: read with `read_apart`; never written here
    stations: Stations
    queue: RequestQueue  #: takes what people ask for
    metrics: Metrics
    live: Callable[[], LiveStatus]  #: what is true only now (see engine/live_status.py)
    config: Callable[[], Config]  #: the configuration in force; it may be replaced
    credential: Callable[[str], str]  #: a credential by name; raises KeyError
    #: has the daemon look at all it needs: level, about and message of each finding
    examine: Callable[[], Awaitable[list[dict[str, str]]]]
    #: has the daemon read its configuration again, and returns its path; raises ConfigError
    reload: Callable[[], Awaitable[str]]
    #: has it compare a job's receipt with everything; the report, and how far it is (looked at, of how many)
    verify: Callable[[Job], tuple[Awaitable[ShownReport], Callable[[], tuple[int, int]]]]


SITE = web.AppKey("site", AppState)
