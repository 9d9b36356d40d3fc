"""Work in threads: that really ends when its task is cancelled, or that may be left behind."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Generic, TypeVar

A = TypeVar("A")
T = TypeVar("T")


class PatientPool(ThreadPoolExecutor):
    """The loop's threads: as many as there is work for and the machine gives; some end when there is none.

    Python's own pool raises where no thread can be started, and yet keeps the work, to run it at some later
    time: the caller has long taken it to have failed, and repeats it. It also keeps every thread without
    end, where programs that are to be started may need their places.
    """

    def __init__(self, most: int | None = None, idle_s: float = 10.0) -> None:
        super().__init__(most)  # whose own threads are never started; asyncio wants one of its kind
        self._idle_s = idle_s
        self._changed = threading.Condition()
        self._work: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._crew: set[threading.Thread] = set()
        self._free, self._over = 0, False
        with self._changed:
            self._call_one()  # one there is always

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Have work done as soon as a thread is free, in the order in which it was submitted.

        Args:
            fn: the work; it runs in a thread.
            args, kwargs: handed to `fn`.

        Raises: RuntimeError: the pool has been shut down.
        """
        future: Future[T] = Future()
        with self._changed:
            if self._over:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._work.append((future, partial(fn, *args, **kwargs)))
            if self._free >= len(self._work):
                self._changed.notify()
            elif len(self._crew) < self._max_workers:
                with contextlib.suppress(RuntimeError, MemoryError):  # those that are there come to it
                    self._call_one()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work; what was taken is done."""
        with self._changed:
            self._over = True
            if cancel_futures:
                for future, _ in self._work:
                    future.cancel()
            self._changed.notify_all()
            crew = list(self._crew)
        for thread in crew if wait else ():
            thread.join()

    def _call_one(self) -> None:
        thread = threading.Thread(target=self._serve, name="asyncio")
        thread.start()
        self._crew.add(thread)

    def _serve(self) -> None:
        while (next_one := self._next()) is not None:
            future, work = next_one
            if future.set_running_or_notify_cancel():
                try:
                    result = work()
                except BaseException as error:  # noqa: BLE001  # raised again by the one who waits
                    future.set_exception(error)
                else:
                    future.set_result(result)
            del next_one, future, work

    def _next(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        with self._changed:
            self._free += 1
            while not self._work and not self._over:
                if not self._changed.wait(self._idle_s) and not self._work and len(self._crew) > 1:
                    break
            self._free -= 1
            if self._work:
                return self._work.popleft()
            self._crew.discard(threading.current_thread())
            return None


class Stopped(Exception):  # not an error: how a thread leaves when told to
    """The task this thread works for was cancelled."""


class Stop:
    """Tells a thread that its task was cancelled; `check` it between pieces of work."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.beats = 0  #: grows with every check: a sign of life

    def set(self) -> None:
        """Ask the thread to leave."""
        self._event.set()

    def check(self) -> None:
        """Leave if asked to. Raises: Stopped."""
        self.beats += 1
        if self._event.is_set():
            raise Stopped


def in_order(items: Iterable[A], work: Callable[[A], T], threads: int) -> Iterator[tuple[A, T]]:
    """Yield each item with what `work` makes of it, in the order of the items. Blocking.

    Args:
        items: taken in the calling thread, a few ahead.
        work: called in one of the threads; it should look now and then whether it is to leave.
        threads: that work at once.

    Raises: what `work` raises, at the turn of its item; those that have begun end before it is raised.
    """
    waiting: deque[tuple[A, Future[T]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(work, item)))
                if len(waiting) > 4 * threads:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


async def in_thread(work: Callable[[Stop], T]) -> T:
    """Run `work(stop)` in a thread; on cancellation tell it so and return only when it has left.

    A plain asyncio.to_thread leaves the thread running after cancellation: it would still write
    into a directory whose job goes on elsewhere.
    """
    stop = Stop()
    task = asyncio.ensure_future(asyncio.to_thread(work, stop))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        stop.set()
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:  # a second cancellation changes nothing
                continue
        if not task.cancelled():
            task.exception()  # seen: Stopped, or what no longer matters
        raise


def detached(work: Callable[[], T], name: str) -> asyncio.Future[T]:
    """Run blocking work in a thread that dies with the process, and return a future of its result.

    The loop's own threads are waited for at the end: work that never ends would hold up a stop.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def tell(value: T | None, error: BaseException | None) -> None:
        if done.done():  # cancelled meanwhile
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(value)  # type: ignore[arg-type]  # T when there is no error

    def body() -> None:
        value, failure = None, None
        try:
            value = work()
        except BaseException as error:  # noqa: BLE001  # raised again by the one who waits
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(tell, value, failure)

    try:
        threading.Thread(target=body, name=name, daemon=True).start()
    except RuntimeError as error:  # in the words in which a program that cannot be started says the same
        raise BlockingIOError(errno.EAGAIN, "no more threads can be started") from error
    return done


class Hung(Exception):
    """A thread showed no sign of life for too long, and was left behind."""


#: Threads left behind, by what they look at.
_hung: dict[str, asyncio.Future[Any]] = {}

#: How long a thread that looks at something outside has to leave when its task is cancelled.
_LEAVE_S = 3.0


async def in_own_thread(work: Callable[[Stop], T], *, key: str, stall_s: float) -> T:
    """Run `work(stop)` in a thread of its own, which is left behind when it hangs.

    For reading what may never answer: a thread of the loop's pool would be lost foreverything
    else. While one hangs, no other is sent after it.

    Args:
        key: what it looks at.
        stall_s: seconds without a `stop.check` after which it is taken to hang.

    Raises: Hung; what `work` raises.
    """
    before = _hung.get(key)
    if before is not None and not before.done():
        raise Hung
    stop = Stop()
    done = detached(lambda: work(stop), f"look:{key}")
    try:
        while not done.done():
            beats = stop.beats
            await asyncio.wait([done], timeout=stall_s)
            if not done.done() and stop.beats == beats:
                raise Hung
        return done.result()
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait([done], timeout=min(stall_s, _LEAVE_S))
        raise
    finally:
        if not done.done():
            stop.set()
            _hung[key] = done
        elif not done.cancelled():
            done.exception()  # seen: Stopped, or what no longer matters


class Piece(Generic[T]):
    """One piece of work for a crew."""

    def __init__(self, work: Callable[[Stop], T]) -> None:
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[T] = self.loop.create_future()
        self.stop = Stop()
        self.begun = self.over = self.left = False
        self._work = work

    def run(self) -> None:
        """Do it, in a thread of the crew."""
        value, failure = None, None
        self.begun = True
        try:
            value = self._work(self.stop)
        except BaseException as error:  # noqa: BLE001  # raised again by the one who waits
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self.loop.call_soon_threadsafe(self._tell, value, failure)

    def _tell(self, value: T | None, failure: BaseException | None) -> None:
        if self.done.done():  # cancelled meanwhile, or left behind
            return
        if failure is not None:
            self.done.set_exception(failure)
            self.done.exception()  # seen: the one who asked may have gone
        else:
            self.done.set_result(value)  # type: ignore[arg-type]  # T when there is no failure


class Crew:
    """A few threads for short looks at what may never answer; one that hangs is replaced.

    They are made when there is work, end when there is none for a while, and die with the process.
    """

    def __init__(self, name: str, size: int, idle_s: float = 10.0) -> None:
        self._name, self._size, self._idle_s = name, size, idle_s
        self._changed = threading.Condition()
        self._queue: deque[Piece[Any]] = deque()
        self._idle = self._threads = 0

    def begin(self, work: Callable[[Stop], T]) -> Piece[T]:
        """Have a piece of work done as soon as a thread is free."""
        piece = Piece(work)
        with self._changed:
            self._queue.append(piece)
            self._call_one()
        return piece

    def leave(self, piece: Piece[Any]) -> None:
        """Give up the thread that does a piece of work: anyone who waits gets Hung."""
        with self._changed:
            if piece.over:  # in the last moment
                return
            piece.left = True
            self._threads -= 1
            if self._queue:
                self._call_one()
        piece.stop.set()
        if not piece.done.done():
            piece.done.set_exception(Hung())
            piece.done.exception()

    def _call_one(self) -> None:
        if self._idle >= len(self._queue):
            self._changed.notify()
        elif self._threads < self._size:
            try:
                threading.Thread(target=self._serve, name=self._name, daemon=True).start()
            except (RuntimeError, MemoryError) as error:
                if not self._threads:  # else those that are there will come to it
                    self._refuse(error)
                return
            self._threads += 1

    def _refuse(self, error: Exception) -> None:
        """Tell all who wait that nobody can do their work."""
        for piece in self._queue:
            if not piece.done.done():
                piece.done.set_exception(error)
                piece.done.exception()  # seen: the one who asked may have gone
        self._queue.clear()

    def _serve(self) -> None:
        while (piece := self._next()) is not None:
            piece.run()
            with self._changed:
                piece.over = True
                if piece.left:  # another has taken this thread's place
                    return

    def _next(self) -> Piece[Any] | None:
        with self._changed:
            self._idle += 1
            self._changed.wait_for(lambda: bool(self._queue), self._idle_s)
            self._idle -= 1
            if not self._queue:
                self._threads -= 1
                return None
            return self._queue.popleft()
