"""What a source keeps of the remote system: the same on SQLite and on PostgreSQL."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from dittohead.contract.catalogue import Leaving, Told
from dittohead.store import Store, sqlite_url
from dittohead.store import catalogue as catalogue_store
from dittohead.store.keeping import KeptCatalogue
from dittohead.store.tables import listing_entries, metadata
from tests.support.length import budget
from tests.support.postgres import postgres

pytestmark = pytest.mark.service

EARLY = Leaving(states=None, state="gone", reason="no longer listed", before=1e12)


@pytest.fixture(scope="session")
def server() -> Iterator[sa.URL]:
    with postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "sqlite":
        made = Store.open(sqlite_url(tmp_path))
    else:
        made = Store.open(request.getfixturevalue("server"))
    yield made
    if request.param == "postgresql":
        made.run(lambda c: [c.execute(table.delete()) for table in reversed(metadata.sorted_tables)])
    made.close()


@pytest.fixture
def kept(store: Store, tmp_path: Path) -> KeptCatalogue:
    return KeptCatalogue(store, "s", tmp_path)


def told(*keys: str, state: str = "known", **more: object) -> list[Told]:
    return [Told(key=key, state=state, **more) for key in keys]  # type: ignore[arg-type]


async def test_a_change_is_kept_with_its_reason_and_what_is_as_it_was_is_not_written(
    kept: KeptCatalogue,
) -> None:
    first = await kept.tell("v", told("a", "b", attributes={"n": 1}), by="x")
    again = await kept.tell("v", told("a", "b", attributes={"n": 1}), by="x")
    moved = await kept.tell("v", told("a", state="converted", reason="ready"), by="y")
    assert [(t.new, t.changed) for t in (first, again, moved)] == [(2, 0), (0, 0), (0, 1)]
    assert [(c.state, c.reason, c.by) for c in await kept.history("v", "a")] == [("converted", "ready", "y")]
    assert (await kept.get("v", ["a"]))["a"].attributes == {"n": 1}
    assert await kept.counts("v") == {("known", ""): 1, ("converted", ""): 1}


async def test_only_the_states_that_may_be_replaced_are(kept: KeptCatalogue) -> None:
    await kept.tell("v", [*told("a"), *told("b", state="converted")])
    await kept.tell("v", told("a", "b", state="available", over=frozenset({"known"}), reason="why"))
    found = await kept.get("v", ["a", "b"])
    assert {key: (e.state, e.reason) for key, e in found.items()} == {
        "a": ("available", "why"),
        "b": ("converted", ""),
    }


async def test_sources_and_kinds_are_apart(store: Store, kept: KeptCatalogue, tmp_path: Path) -> None:
    other = KeptCatalogue(store, "t", tmp_path)
    await kept.tell("v", told("a"))
    await kept.tell("w", told("a", state="x"))
    await other.tell("v", told("a", state="y"))
    assert [await kept.counts("v"), await kept.counts("w"), await other.counts("v")] == [
        {("known", ""): 1},
        {("x", ""): 1},
        {("y", ""): 1},
    ]


async def test_what_a_whole_listing_does_not_name_leaves(kept: KeptCatalogue) -> None:
    await kept.tell("v", told("a", "b", "c"))
    listing = await kept.begin("v", "all")
    await kept.tell("v", told("b", "d"), listing=listing, position={"line": 2})
    ended = await kept.end(listing, EARLY, sha256="0" * 64, file="f")
    assert (ended.state, ended.seen, ended.new, ended.gone) == ("whole", 2, 1, 2)
    assert await kept.counts("v") == {("known", ""): 2, ("gone", ""): 2}
    assert [c.reason for c in await kept.history("v", "a")] == ["no longer listed"]
    assert await kept.last("v", "all") == ended


async def test_a_listing_that_broke_off_or_is_too_short_marks_nothing(
    kept: KeptCatalogue, store: Store
) -> None:
    await kept.tell("v", told("a", "b", "c"))
    broken = await kept.begin("v", "all")
    await kept.tell("v", told("a"), listing=broken)
    await kept.cut(broken, "the connection broke")
    short = await kept.begin("v", "all")
    assert short.id != broken.id
    await kept.tell("v", told("a"), listing=short)
    rule = Leaving(states=None, state="gone", reason="x", before=1e12, most=1)
    ended = await kept.end(short, rule)
    assert (ended.state, "2 entries would leave" in ended.reason) == ("doubtful", True)
    assert await kept.counts("v") == {("known", ""): 3}
    assert await kept.last("v", "all") is None
    rows = sa.select(sa.func.count()).select_from(listing_entries)
    assert store.run(lambda c: c.execute(rows).scalar()) == 0


async def test_what_changed_after_a_listing_was_begun_does_not_leave_by_it(kept: KeptCatalogue) -> None:
    await kept.tell("v", told("a"))
    listing = await kept.begin("v", "all")
    await kept.tell("v", told("b"))
    rule = Leaving(states=frozenset({"known"}), state="gone", reason="x", before=listing.begun_at)
    await kept.end(listing, rule)
    assert {k: e.state for k, e in (await kept.get("v", ["a", "b"])).items()} == {"a": "gone", "b": "known"}


class Killed(BaseException):
    """The daemon's death, at a named moment."""


@pytest.mark.parametrize("seed", budget(range(4), 0))
async def test_a_round_killed_anywhere_and_resumed_is_as_one_that_was_not(
    kept: KeptCatalogue, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before, after and between transactions, listing and leaving, at moments drawn by chance."""
    chance = random.Random(seed)
    before = [f"k{n:04}" for n in range(300)]
    after = [key for key in before if chance.random() < 0.5] + [f"n{n:04}" for n in range(100)]
    chance.shuffle(after)
    monkeypatch.setattr(catalogue_store, "LEAVE", 20)
    await kept.tell("v", told(*before))

    def perhaps(name: str) -> None:
        if chance.random() < 0.25:
            raise Killed

    monkeypatch.setattr("dittohead.system.fail_points.point", perhaps)
    for _ in range(500):
        try:
            listing = await kept.begin("v", "all")
            at = listing.position.get("line", 0)
            while at < len(after):
                part = after[at : at + 25]
                at += len(part)
                await kept.tell("v", told(*part), listing=listing, position={"line": at})
            ended = await kept.end(listing, EARLY)
            break
        except Killed:
            continue
    monkeypatch.setattr("dittohead.system.fail_points.point", lambda name: None)
    gone = set(before) - set(after)
    assert ended.state == "whole"
    assert {len(await kept.history("v", key)) for key in gone} == {1}
    assert await kept.counts("v") == {("known", ""): len(set(after)), ("gone", ""): len(gone)}


async def test_counts_are_what_counting_gives_after_whatever_happens(kept: KeptCatalogue) -> None:
    chance = random.Random(5)
    keys = [f"k{n}" for n in range(40)]
    for _ in range(60):
        some = [
            Told(
                key=chance.choice(keys),
                state=chance.choice(["a", "b", "c", None]),
                stage=chance.choice(["", "wanted", None]),
                over=chance.choice([None, frozenset({"a"})]),
            )
            for _ in range(7)
        ]
        await kept.tell("v", some, only_known=chance.random() < 0.3)
    counted = Counter((e.state, e.stage) for e in await kept.page("v"))
    assert await kept.counts("v") == dict(counted)


async def test_the_highest_priority_comes_first_then_the_oldest(kept: KeptCatalogue) -> None:
    await kept.tell("v", told("a", "b"))
    await kept.tell("v", told("c", priority=5))
    await kept.tell("v", told("d", state="other"))
    assert [e.key for e in await kept.pick("v", ["known"], [""], 2)] == ["c", "a"]
    sample = await kept.pick("v", ["known"], [""], 2, sample=True)
    assert len({e.key for e in sample} & {"a", "b", "c"}) == 2


async def test_keys_as_nobody_expects_them(kept: KeptCatalogue) -> None:
    """Capitals count, bytes that are not text are made visible, and a key twice in a batch is one."""
    keys = ["ab", "AB", "a.b", "\udcff", "x\0y", "x'; --"]
    for _ in range(2):
        await kept.tell("v", told(*keys, *keys))
    assert len(await kept.page("v")) == len(keys)
    assert [e.key for e in await kept.page("v", after="a.b", limit=1)] != ["a.b"]
