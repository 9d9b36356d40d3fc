"""What is told as it happens: computed once for all who read, whole for anyone who was away or slow."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, cast

import pytest

from dittohead.model.errors import StoreError
from dittohead.web.server import events
from dittohead.web.server.events import Broadcaster, Fragment, TooMany


class Source:
    """Something that changes, and counts how often it is looked at."""

    def __init__(self) -> None:
        self.parts = {"a": "1", "b": "1"}
        self.has_preflight = 0
        self.fails = False
        self.gate: asyncio.Event | None = None

    async def make(self) -> dict[str, Fragment]:
        self.has_preflight += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.fails:
            raise StoreError("it is away")
        return {key: Fragment("part", f'"{key}{value}"') for key, value in self.parts.items()}


@pytest.fixture
async def broadcaster() -> AsyncIterator[Broadcaster]:
    made = Broadcaster(every_s=0.01)
    yield made
    await made.close()


@contextlib.asynccontextmanager
async def reading(broadcaster: Broadcaster, source: Source, last: str = "") -> AsyncIterator[Any]:
    """A reader, past the line that says how soon to come again."""
    texts = cast(AsyncGenerator[str, None], broadcaster.follow("t", source.make, last))
    async with contextlib.aclosing(texts):
        assert await anext(texts) == "retry: 2000\n\n"
        yield texts


async def next_event(texts: Any) -> str:
    """The next text that is not a sign of life."""
    async with asyncio.timeout(20):
        while (text := await anext(texts)).startswith(":"):
            pass
    return cast(str, text)


def ids(text: str) -> list[str]:
    return [line[4:] for line in text.splitlines() if line.startswith("id: ")]


async def test_readers_get_all_there_is_and_then_what_changes(broadcaster: Broadcaster) -> None:
    """Only the part that changed, in one event, to each of them."""
    source = Source()
    async with reading(broadcaster, source) as one, reading(broadcaster, source) as two:
        for texts in (one, two):
            first = await next_event(texts)
            assert '"a1"' in first
            assert '"b1"' in first
        source.parts["b"] = "2"
        for texts in (one, two):
            second = await next_event(texts)
            assert '"b2"' in second
            assert '"a1"' not in second  # the id may hold these letters


async def test_fifty_readers_cost_no_more_looks_than_one(broadcaster: Broadcaster) -> None:
    """They come together, and one look serves all who came before it began."""
    source = Source()
    source.gate = asyncio.Event()
    waiting = [asyncio.ensure_future(broadcaster.now("t", source.make)) for _ in range(3)]
    async with contextlib.AsyncExitStack() as stack:
        followers = [broadcaster.follow("t", source.make) for _ in range(50)]
        for texts in followers:
            await stack.enter_async_context(contextlib.aclosing(cast(Any, texts)))
        first = [asyncio.ensure_future(anext(texts)) for texts in followers]
        while source.has_preflight < 4:  # three that found no topic, and the followers' first
            await asyncio.sleep(0)
        for _ in range(100):
            await asyncio.sleep(0)
        assert source.has_preflight == 4
        source.gate.set()
        await asyncio.gather(*waiting, *first)
        # Those who asked while it looked may not be served by what began before them: one more look does.
        assert source.has_preflight <= 5 + 1
        assert broadcaster.readers == 50
    assert broadcaster.readers == 0


async def test_what_is_asked_for_now_is_not_from_before(broadcaster: Broadcaster) -> None:
    """A page after a button shows what the button has done, though a look was under way already."""
    source = Source()
    async with reading(broadcaster, source) as texts:
        await next_event(texts)
        source.gate = asyncio.Event()
        looks = source.has_preflight
        while source.has_preflight == looks:  # the one that keeps looking has begun
            await asyncio.sleep(0)
        asked = asyncio.ensure_future(broadcaster.now("t", source.make))
        await asyncio.sleep(0)
        source.parts["a"] = "9"
        source.gate.set()
        assert (await asked)["a"].data == '"a9"'


async def test_who_was_away_gets_what_changed_meanwhile_and_no_more(broadcaster: Broadcaster) -> None:
    """By the id of the last event; one of another daemon's time, or no id at all, gets everything."""
    source = Source()
    async with reading(broadcaster, source) as keeper:
        first = await next_event(keeper)
        source.parts["a"] = "2"
        await next_event(keeper)
        async with reading(broadcaster, source, ids(first)[-1]) as back:
            text = await next_event(back)
            assert '"a2"' in text
            assert '"b1"' not in text
        for last in ("", "deadbeef-1", "nonsense", ids(first)[-1] + "x", f"{ids(first)[-1].split('-')[0]}-²"):
            async with reading(broadcaster, source, last) as stranger:
                text = await next_event(stranger)
                assert '"a2"' in text
                assert '"b1"' in text


async def test_a_slow_reader_misses_what_lay_between_and_never_the_outcome(broadcaster: Broadcaster) -> None:
    """Nothing is kept for it: whatever it missed, it is told what is so now, once."""
    source = Source()
    async with reading(broadcaster, source) as slow, reading(broadcaster, source) as quick:
        await next_event(slow)
        await next_event(quick)
        for number in range(20):
            source.parts["a"] = f"-{number}"
            assert f"a-{number}" in await next_event(quick)
        text = await next_event(slow)
        assert ids(text) == ids(text)[:1]
        assert "a-19" in text


async def test_a_look_that_fails_ends_no_stream(broadcaster: Broadcaster) -> None:
    """The store may be away for a while; when it is back, readers hear of it."""
    source = Source()
    async with reading(broadcaster, source) as texts:
        await next_event(texts)
        source.fails = True
        looks = source.has_preflight
        while source.has_preflight < looks + 3:
            await asyncio.sleep(0.005)
        source.parts["a"], source.fails = "3", False
        assert '"a3"' in await next_event(texts)


async def test_a_silent_stream_gives_signs_of_life_and_ends_in_time(
    broadcaster: Broadcaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proxies close what is silent; anyone who reads for long is asked again who they are."""
    monkeypatch.setattr(events, "HEARTBEAT_S", 0.02)
    monkeypatch.setattr(events, "LIFE_S", 0.3)
    source = Source()
    async with reading(broadcaster, source) as texts:
        await next_event(texts)
        rest = [text async for text in texts]
    assert rest
    assert set(rest) == {": still here\n\n"}


async def test_streams_and_topics_are_bounded_and_end_with_the_daemon(
    broadcaster: Broadcaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One too many is refused; a stop waits for none of them."""
    monkeypatch.setattr(events, "READERS", 2)
    source = Source()
    async with reading(broadcaster, source) as one, reading(broadcaster, source):
        with pytest.raises(TooMany):
            await anext(cast(Any, broadcaster.follow("t", source.make)))
        await next_event(one)
        await broadcaster.close()
        assert [text async for text in one] == []
    monkeypatch.setattr(events, "TOPICS", 0)
    with pytest.raises(TooMany):
        await anext(cast(Any, broadcaster.follow("other", source.make)))


def test_shared_text_gets_each_readers_own_secret() -> None:
    """And nobody can have a folder's name turned into it."""
    part = events.fragment("x", f'<input value="{events.CSRF}"> csrf')
    assert events.for_reader(part.data, "mine").count("mine") == 1
    assert events.CSRF not in events.for_reader(part.data, "mine")
