"""Open the database, and run each transaction whole in the store's one writing thread."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError

from dittohead.model.errors import StoreError
from dittohead.store import schema
from dittohead.system import fail_points
from dittohead.system.files import make_way

P = ParamSpec("P")
T = TypeVar("T")

#: One transaction's future, its value, and what it raised.
_Outcome = tuple["asyncio.Future[Any]", Any, BaseException | None]

#: What to do about a damaged file.
_DAMAGED = (
    "Stop the daemon; restore the file from a backup, or rebuild it from receipts and stations "
    "(the damaged one is kept): dittohead rebuild"
)

#: Set in a connection's `info` by what puts a notice into the outbox.
TOLD = "told"

#: How long a statement waits for another process's write (the CLI's requests) before it fails.
_BUSY_S = 30

#: How long a server has to answer when it is connected to.
_CONNECT_S = 10

#: A line to a server that was cut without a word is given up after about this long. Source: libpq-connect.
_LINE = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 60_000}

#: Anyone who reads apart is told after this long that the store does not answer.
SILENT_S = 30.0

#: What is under way has this long to end at a stop, before the line to the server is cut.
_END_S = 3.0


class Store:
    """The durable memory of the daemon.

    A transaction is a plain function of a Connection, run whole in one thread: one hop for a
    transaction, not one for every statement, and a single writer without any lock of ours.
    `write` returns only after the commit is on disk (SQLite: WAL with synchronous=FULL).
    """

    def __init__(self, url: sa.URL) -> None:
        self.url = url
        self.engine = _engine(url)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store-write")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="store-read")
        self._apart = ThreadPoolExecutor(1, thread_name_prefix="store-apart")
        self._queue: deque[tuple[Callable[[Connection], Any], asyncio.Future[Any]]] = deque()
        self._draining = False
        self._ready: set[ThreadPoolExecutor] = set()  # those that have their thread
        self._begun: dict[ThreadPoolExecutor, float] = {}  # what is under way, by the clock that only goes on
        self._lines: weakref.WeakSet[Any] = weakref.WeakSet()  # connections to a server
        if url.get_backend_name() != "sqlite":
            sa.event.listen(self.engine, "connect", lambda line, record: self._lines.add(line))
        self._has_told = self._closed = False
        self.on_told: Callable[[], None] = lambda: None  #: called in the loop when notices have been written
        self._local = threading.local()

    @classmethod
    def open(cls, url: sa.URL, *, check: bool = True) -> Store:
        """Open the store, making or migrating its tables. Blocking.

        Args:
            check: read all of it to find damage; for the daemon at its start.

        Raises: StoreError: it cannot be reached, is damaged, or is of a newer version.
        """
        if url.get_backend_name() == "sqlite":
            _check_file(Path(str(url.database)))
        with contextlib.ExitStack() as refused:
            store = cls(url)
            refused.callback(store.engine.dispose)
            try:
                schema.upgrade(store.engine)
                if check and url.get_backend_name() == "sqlite":
                    _check_sqlite(store.engine, url)
            except SQLAlchemyError as error:
                raise _refusal(error, url) from error
            refused.pop_all()
        return store

    async def write(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `work(connection, ...)` as one transaction; committed and durable on return.

        What waits while a commit reaches the disk is committed together, each in a savepoint of its
        own: the disk's latency is paid once for all of them.

        Cancellation does not undo it: the transaction either ran whole or never began.

        Args:
            work: a function of store/.
            args, kwargs: handed to `work` behind the connection.

        Returns: what `work` returns.
        Raises: StoreError, and what `work` raises (then nothing was written).
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._queue.append((lambda connection: work(connection, *args, **kwargs), future))
        if not self._draining:
            self._draining = True
            self._drain(loop)
        return await asyncio.shield(future)

    def _drain(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have written what waits; if that cannot be begun, those who wait hear of it, and others may try."""
        taken = self._taken()
        try:
            drained = self._in_thread(loop, self._writer, lambda: self._write_together(taken))
        except StoreError as error:
            self._draining = False
            _tell([(future, None, error) for _, future in taken])
        else:
            drained.add_done_callback(self._written)

    def _in_thread(
        self, loop: asyncio.AbstractEventLoop, pool: ThreadPoolExecutor, work: Callable[[], T]
    ) -> asyncio.Future[T]:
        """Run work in a pool's one thread. Raises: StoreError: it has none, and never runs it."""
        try:
            if pool not in self._ready:
                # Something harmless first: a pool that cannot start its thread raises, and yet keeps what it
                # was given, to run it when it has one.
                pool.submit(_nothing)
                self._ready.add(pool)
            return loop.run_in_executor(pool, self._timed, pool, work)
        except (RuntimeError, MemoryError) as error:
            raise StoreError(
                f"the store cannot be used now ({str(error) or 'no memory'})",
                hint="Work goes on by itself when this machine has threads and memory again",
            ) from error

    def _timed(self, pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        self._begun[pool] = time.monotonic()
        try:
            return work()
        finally:
            self._begun.pop(pool, None)

    @property
    def silent_s(self) -> float:
        """For how long the work has asked something of the database that it has not answered yet."""
        now = time.monotonic()
        return max(now - self._begun.get(pool, now) for pool in (self._writer, self._reader))

    def _taken(self) -> list[tuple[Callable[[Connection], Any], asyncio.Future[Any]]]:
        taken = list(self._queue)
        self._queue.clear()
        return taken

    def _written(self, drained: asyncio.Future[list[_Outcome]]) -> None:
        """Tell who waited, in the loop's thread; then write what has come meanwhile."""
        told, self._has_told = self._has_told, False
        _tell(drained.result())
        if self._queue:
            self._drain(drained.get_loop())
        else:
            self._draining = False
        if told:
            self.on_told()

    def _write_together(
        self, taken: list[tuple[Callable[[Connection], Any], asyncio.Future[Any]]]
    ) -> list[_Outcome]:
        """Run transactions with one commit; if that fails, all of them have failed."""
        outcomes: list[_Outcome] = []
        try:
            connection = self._connection()
            connection.info.pop(TOLD, None)  # of one that was rolled back
            with connection.begin():
                for work, future in taken:
                    outcomes.append(self._in_savepoint(connection, work, future, alone=len(taken) == 1))
                fail_points.point("store.written")
            fail_points.point("store.committed")
            self._has_told |= connection.info.pop(TOLD, False)
        except SQLAlchemyError as error:
            self._forget()
            failed = _refusal(error, self.url)
            return [(future, None, failed) for _, future in taken]
        except BaseException as error:  # noqa: BLE001  # raised by the only transaction, which is rolled back
            return [(future, None, error) for _, future in taken]
        return outcomes

    def _in_savepoint(
        self,
        connection: Connection,
        work: Callable[[Connection], Any],
        future: asyncio.Future[Any],
        *,
        alone: bool,
    ) -> _Outcome:
        if alone:
            return (future, work(connection), None)
        # By hand: SQLAlchemy's own savepoints cost as much as the statements inside.
        connection.exec_driver_sql("SAVEPOINT one")
        try:
            outcome: _Outcome = (future, work(connection), None)
        except SQLAlchemyError:
            raise
        except Exception as error:  # noqa: BLE001  # its own; the others' work stands
            connection.exec_driver_sql("ROLLBACK TO SAVEPOINT one")
            outcome = (future, None, error)
        connection.exec_driver_sql("RELEASE SAVEPOINT one")
        return outcome

    async def read(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `work(connection, ...)`, which only reads, beside the writer.

        Args:
            work: a function of store/ that only reads.
            args, kwargs: handed to `work` behind the connection.

        Returns: what `work` returns.
        Raises: StoreError, and what `work` raises.
        """
        return await self._in_pool(self._reader, work, *args, **kwargs)

    async def read_apart(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Read as `read` does, in a thread that no job waits for: for people, whose questions may be long.

        Args:
            work: a function of store/ that only reads.
            args, kwargs: handed to `work` behind the connection.

        Returns: what `work` returns.
        Raises: StoreError: also where no answer comes.
        """
        left = SILENT_S - (time.monotonic() - self._begun.get(self._apart, time.monotonic()))
        try:
            async with asyncio.timeout(max(left, 0.0)):
                return await self._in_pool(self._apart, work, *args, **kwargs)
        except TimeoutError as error:
            raise StoreError(
                "the store does not answer", hint="Work goes on by itself when it does", passing=True
            ) from error

    async def _in_pool(
        self,
        pool: ThreadPoolExecutor,
        work: Callable[Concatenate[Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        def call() -> T:
            self._local.reading = True
            return self.run(work, *args, **kwargs)

        return await self._in_thread(asyncio.get_running_loop(), pool, call)

    def run(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run one transaction in the calling thread. Blocking; for the command line and tests.

        Args:
            work: a function of store/.
            args, kwargs: handed to `work` behind the connection.

        Returns: what `work` returns.
        Raises: StoreError, and what `work` raises (then nothing was written).
        """
        try:
            connection = self._connection()
            with connection.begin():
                return work(connection, *args, **kwargs)
        except SQLAlchemyError as error:
            self._forget()
            raise _refusal(error, self.url) from error

    def _connection(self) -> Connection:
        # One connection a thread, kept open: taking one from the pool costs more than a statement.
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is None or connection.closed or connection.invalidated:
            reading = getattr(self._local, "reading", False)
            connection = self.engine.connect().execution_options(dittohead_reading=reading)
            self._local.connection = connection
        return connection

    def _forget(self) -> None:
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is not None:
            self._local.connection = None
            try:
                connection.close()
            except SQLAlchemyError:
                connection.invalidate()

    def close(self) -> None:
        """Finish what is under way and close; what a server does not answer is given up. Blocking.

        What is closed already stays so.
        """
        if self._closed:
            return
        self._closed = True
        pools = (self._writer, self._reader, self._apart)
        _, late = wait([pool.submit(self._forget) for pool in pools], _END_S)
        if late:
            self._hang_up()
        for pool in pools:
            pool.shutdown(wait=True)
        self._forget()
        self.engine.dispose()

    def _hang_up(self) -> None:
        """Cut the lines to a server: anyone who waits for its answer gets an error."""
        for line in list(self._lines):
            with contextlib.suppress(Exception), socket.socket(fileno=os.dup(line.fileno())) as end:
                end.shutdown(socket.SHUT_RDWR)  # not of one that was closed meanwhile


def _tell(outcomes: list[_Outcome]) -> None:
    """Give those who wait what became of their transactions."""
    for future, value, error in outcomes:
        if future.cancelled():
            continue
        if error is not None:
            future.set_exception(error)
            future.exception()  # seen: anyone who waited may have been cancelled
        else:
            future.set_result(value)


def _nothing() -> None:
    pass


def sqlite_url(state: Path) -> sa.URL:
    """Return the URL of the embedded store in the root's state/ directory."""
    return sa.URL.create("sqlite", database=str(state / "dittohead.sqlite3"))


def _engine(url: sa.URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        return sa.create_engine(url, pool_pre_ping=True, connect_args=_LINE | {"connect_timeout": _CONNECT_S})
    engine = sa.create_engine(
        url,
        connect_args={"timeout": _BUSY_S, "isolation_level": None, "check_same_thread": False},
    )

    @sa.event.listens_for(engine, "connect")
    def _configure(connection: Any, record: Any) -> None:
        with contextlib.ExitStack() as refused:
            refused.callback(connection.close)  # SQLAlchemy has not taken it over yet
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
                connection.execute(f"PRAGMA {pragma}")
            refused.pop_all()

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # IMMEDIATE: a transaction that reads first and writes then could otherwise fail at once
        # with "database is locked", no matter how long it may wait. The reading thread must not
        # take the writer's lock.
        reading = connection.get_execution_options().get("dittohead_reading")
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def _check_file(path: Path) -> None:
    """See that the file can be a database. Raises: StoreError."""
    make_way(path.with_name(f"{path.name}-shm"))  # an index of the log; SQLite makes it again
    for file in (path, path.with_name(f"{path.name}-wal")):
        _must_be_a_file(file)


def _must_be_a_file(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        mode = os.lstat(path).st_mode
        if not (stat.S_ISREG(mode) or (stat.S_ISLNK(mode) and path.is_file())):
            raise StoreError("the store is not a regular file", where=str(path), hint=_DAMAGED)
        if not os.access(path, os.R_OK | os.W_OK):
            hint = "Give state/ and what is in it to the daemon's user; and run commands as that user"
            raise StoreError("the store may not be read and written", where=str(path), hint=hint)


#: What a database says that goes on saying so: somebody has to do something about it.
_LASTING = (
    "malformed",
    "not a database",
    "authentication",
    "does not exist",
    "pg_hba.conf",
    "permission",
    "permitted",
    "no password",
    "invalid",
)


def _check_sqlite(engine: Engine, url: sa.URL) -> None:
    with engine.connect() as connection:
        found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    if found != "ok":
        raise StoreError(
            f"the store is damaged ({found})",
            where=str(url.database),
            hint=_DAMAGED,
        )


def _refusal(error: SQLAlchemyError, url: sa.URL) -> StoreError:
    # The driver's own words only: SQLAlchemy's add the statement with its values.
    said = str(error.orig).strip() if isinstance(error, DBAPIError) else type(error).__name__
    where = str(url.database) if url.get_backend_name() == "sqlite" else url.render_as_string()
    hint = ""
    if "malformed" in said or "not a database" in said:
        hint = _DAMAGED
    elif isinstance(error, OperationalError):
        hint = "Check that the store can be reached, is not full and may be written by the daemon"
    passing = isinstance(error, OperationalError | InterfaceError) and not any(w in said for w in _LASTING)
    return StoreError(
        said.splitlines()[0] if said else "unknown error", where=where, hint=hint, passing=passing
    )
