"""The loop's threads: work is done by those there are, and never both refused and done."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from dittohead.system import threads
from dittohead.system.threads import Crew, PatientPool, Stop


@pytest.fixture
def no_more(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """The machine gives no thread while there is something in it."""
    short: list[bool] = []
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if short:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    return short


def test_work_waits_for_a_thread_where_no_other_can_be_started(no_more: list[bool]) -> None:
    """Python's own pool raises, and does the work all the same."""
    pool = PatientPool(4)
    no_more.append(True)
    go = threading.Event()
    first, second = pool.submit(go.wait), pool.submit(lambda: 2)
    assert not second.done()
    go.set()
    assert (first.result(10), second.result(10)) == (True, 2)
    pool.shutdown()


def test_threads_without_work_end_but_for_one() -> None:
    """Programs that are to be started may need their places."""
    pool = PatientPool(4, idle_s=0.01)
    met = threading.Barrier(4)
    waits: list[Future[int]] = [pool.submit(met.wait) for _ in range(4)]
    assert sorted(future.result(10) for future in waits) == [0, 1, 2, 3]
    end = time.monotonic() + 10
    while len(pool._crew) > 1 and time.monotonic() < end:
        time.sleep(0.005)
    assert len(pool._crew) == 1
    assert pool.submit(lambda: 3).result(10) == 3
    pool.shutdown()


def test_a_pool_that_is_shut_down_does_what_it_has_and_takes_nothing_more() -> None:
    """As Python's own."""
    pool = PatientPool(1)
    futures = [pool.submit(time.monotonic) for _ in range(5)]
    failed = pool.submit(int, "x")
    pool.shutdown()
    assert all(future.done() for future in futures)
    assert isinstance(failed.exception(), ValueError)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(int)


async def test_asyncio_takes_it_as_its_own() -> None:
    """Also a cancelled wait, whose work is not begun any more."""
    loop, pool = asyncio.get_running_loop(), PatientPool(1)
    go, ran = threading.Event(), []
    busy = loop.run_in_executor(pool, go.wait)
    waiting = loop.run_in_executor(pool, ran.append, 1)
    waiting.cancel()
    await asyncio.sleep(0)  # the loop passes it on
    go.set()
    assert await busy
    await loop.run_in_executor(pool, int)
    assert ran == []
    pool.shutdown()


async def test_a_crew_that_gets_no_thread_says_so_and_forgets_nothing(no_more: list[bool]) -> None:
    """It counted the thread that was not there, and nobody looked at anything any more."""
    crew = Crew("look", 2)

    def work(stop: Stop) -> int:
        return 1

    no_more.append(True)
    with pytest.raises(RuntimeError, match="new thread"):
        await crew.begin(work).done
    no_more.clear()
    assert await asyncio.gather(*(crew.begin(work).done for _ in range(5))) == [1] * 5


def test_what_several_threads_make_comes_in_the_order_of_the_items() -> None:
    """Two at once, and never more; a few ahead, and never all."""
    taken, busy, most, lock = [], 0, 0, threading.Lock()
    both = threading.Barrier(2, timeout=60)

    def items() -> Iterator[int]:
        for number in range(40):
            taken.append(number)
            yield number

    def work(number: int) -> int:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        if number < 2:
            both.wait()  # passes only where both are at work
        with lock:
            busy -= 1
        return number * number

    for number, square in threads.in_order(items(), work, 2):
        assert square == number * number
        assert len(taken) <= number + 11
    assert (len(taken), most) == (40, 2)


def test_an_error_comes_at_its_turn_and_no_more_is_begun() -> None:
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        if number == 3:
            raise ValueError("three")
        return number

    got: list[int] = []
    with pytest.raises(ValueError, match="three"):
        got.extend(number for number, _ in threads.in_order(range(1000), work, 2))
    assert got == [0, 1, 2]
    assert len(begun) < 20
