"""A store that is away for a while: the driver's own errors, from any statement and any commit."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from random import Random
from typing import Any

import psycopg

from dittohead.store import Store

#: What SQLite and PostgreSQL's driver say when a disk is full or broken, or the server is gone.
SAID = {
    "sqlite": ("database or disk is full", "disk I/O error", "database is locked"),
    "postgresql": ("server closed the connection unexpectedly", "could not extend file: disk is full"),
}


class Outage:
    """Stands between a store and its driver; nothing happens until `begin`."""

    def __init__(self, store: Store, random: Random) -> None:
        self._random, self._left, self._reads_too = random, 0, False
        self.failed = 0  #: calls that failed
        kind = store.url.get_backend_name()
        self._error = sqlite3.OperationalError if kind == "sqlite" else psycopg.OperationalError
        self._said = SAID[kind]
        dialect: Any = store.engine.dialect
        for name in ("do_execute", "do_executemany", "do_commit"):
            setattr(dialect, name, self._between(name, getattr(dialect, name)))

    def begin(self, calls: int, *, reads_too: bool = True) -> None:
        """Let so many calls of the driver fail, one after the other.

        Args:
            reads_too: also when the store is only read, which a full disk does not keep anybody from.
        """
        self._left, self._reads_too = calls, reads_too

    def end(self) -> None:
        """Let the store be there again."""
        self._left = 0

    def _between(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def asked(*args: Any, **kwargs: Any) -> Any:
            writes = threading.current_thread().name.startswith("store-write")
            if self._left > 0 and (writes or self._reads_too):
                self._left -= 1
                self.failed += 1
                # A commit whose answer is lost may have been made.
                if name == "do_commit" and self._random.random() < 0.5:
                    call(*args, **kwargs)
                raise self._error(self._random.choice(self._said))
            return call(*args, **kwargs)

        return asked
