"""What a volume goes through when something goes wrong here, and what a person may wish of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dittohead.contract.worker import Done, StepContext, StepResult
from dittohead.model.errors import ItemError, TargetError, TransientError
from dittohead.sources.grin import refresh as refresh_module
from dittohead.sources.grin.options import VOLUME
from tests.support.grin import Server, serving, unreadable
from tests.support.grin.library import Library
from tests.support.trees import read_tree

pytestmark = pytest.mark.service


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as made:
        yield made


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dittohead.sources.grin.limits._THROTTLED_S", 0.02)
    monkeypatch.setattr(refresh_module, "_GRACE_S", 0.0)


@pytest.fixture
def library(tmp_path: Path, server: Server) -> Iterator[Library]:
    made = Library(tmp_path, server)
    made.sign_in()
    yield made
    made.harness.store.close()


class Plays:
    """Jobs that fail while a volume stands in `failing`."""

    def __init__(self, library: Library) -> None:
        self.failing: set[str] = set()
        self.done: Counter[str] = Counter()
        library.harness.worker.plays["first"] = self.job

    async def job(self, ctx: StepContext) -> StepResult:
        if ctx.name in self.failing:
            raise ItemError("a page is missing", where=ctx.name)
        self.done[ctx.name] += 1
        return Done()


async def brought(library: Library, *barcodes: str, **wish: Any) -> None:
    """Have converted volumes fetched, and their jobs come to their end."""
    known = set(library.world.books)
    library.world.add(*(one for one in barcodes if one not in known), state="converted")
    await library.round()
    await library.want(*barcodes, **wish)
    await library.round()
    await library.jobs()


async def ask(library: Library, action: str, barcode: str) -> None:
    harness = library.harness
    async with harness.running():
        (job,) = [job for job in harness.jobs() if job.name == barcode]
        await harness.ask(action, job.id)
        await harness.until(harness.quiet)
    await library.runner.follow()


async def at(library: Library, barcode: str) -> tuple[str, str]:
    entry = await library.entry(barcode)
    return entry.stage, entry.reason


# -- jobs that fail ---------------------------------------------------------------------------


async def test_a_volume_whose_job_failed_says_so_and_goes_on_when_it_is_retried(library: Library) -> None:
    plays = Plays(library)
    plays.failing = {"C1"}
    await brought(library, "C1", "C2")
    stage, reason = await at(library, "C1")
    assert (stage, "a page is missing" in reason) == ("failed", True)
    assert (await at(library, "C2"))[0] == "stored"
    assert (await library.entry("C1")).attributes["job"] == next(
        job.id for job in library.harness.jobs() if job.name == "C1"
    )
    assert await library.counts_hold()
    plays.failing = set()
    await ask(library, "retry", "C1")
    assert await at(library, "C1") == ("stored", "")
    assert "job" not in (await library.entry("C1")).attributes
    assert await library.counts_hold()
    stages = [change.stage for change in await library.keep.catalogue.history(VOLUME, "C1")]
    assert stages[0] == "stored"
    assert "failed" in stages


async def test_a_job_that_fails_again_keeps_the_latest_reason(library: Library) -> None:
    plays = Plays(library)
    plays.failing = {"C1"}
    await brought(library, "C1")
    await ask(library, "retry", "C1")
    assert (await at(library, "C1"))[0] == "failed"
    assert await library.counts_hold()


async def test_a_dismissed_job_leaves_its_volume_failed(library: Library) -> None:
    Plays(library).failing = {"C1"}
    await brought(library, "C1")
    await ask(library, "dismiss", "C1")
    stage, reason = await at(library, "C1")
    assert (stage, "a page is missing" in reason) == ("failed", True)


async def test_a_job_of_another_name_is_still_the_volumes(library: Library) -> None:
    """Somebody renames the folder in failed/ and moves it back: the inode tells."""
    plays = Plays(library)
    plays.failing = {"C1"}
    await brought(library, "C1")
    plays.failing = set()
    failed = library.harness.root / "failed"
    (failed / "C1").rename(library.inbox / "renamed")
    await library.jobs()
    assert (await at(library, "C1"))[0] == "stored"


async def test_a_folder_taken_out_of_the_inbox_fails_its_volume(library: Library) -> None:
    library.world.add("C1", state="converted")
    await library.round()
    await library.want("C1")
    await library.round()
    (library.inbox / "C1").rename(library.harness.root / "elsewhere")
    for _ in range(3):
        await library.runner.follow()
    stage, reason = await at(library, "C1")
    assert (stage, reason) == ("failed", "the folder was removed from the inbox before it became a job")
    await library.want("C1", again=True)
    await library.round()
    assert library.in_inbox("C1") == {b"C1.tar.gz.gpg": unreadable("C1")}


async def test_failed_volumes_do_not_fill_the_limit_of_the_queues(library: Library) -> None:
    Plays(library).failing = {"C0", "C1"}
    library.world.add(*(f"C{n}" for n in range(4)), state="converted")
    library.again(queues=["converted"], limit=2)
    for _ in range(3):
        await library.round()
        await library.jobs()
    states = await library.states()
    assert states == {
        "C0": "converted/failed", "C1": "converted/failed",
        "C2": "converted/stored", "C3": "converted/stored",
    }  # fmt: skip


# -- wishes -----------------------------------------------------------------------------------


async def test_what_is_stored_is_brought_once_more_where_somebody_insists(library: Library) -> None:
    """The archive is the same: it is fetched again, once for each wish."""
    plays = Plays(library)
    await brought(library, "C1")
    said = await library.want("C1")
    assert said == "0 volumes are now wanted; 1 stored already (--again fetches them once more)"
    assert (await library.want("C1", again=True)) == "1 volume is now wanted"
    assert await library.round() == 1
    assert library.in_inbox("C1") == {b"C1.tar.gz.gpg": unreadable("C1")}
    await library.jobs()
    for _ in range(2):
        await library.round()
    assert (plays.done["C1"], await at(library, "C1")) == (2, ("stored", ""))


async def test_a_wish_survives_the_conversion_that_it_needs(library: Library) -> None:
    """Stored, out of the pool, wanted again, converted to the very same archive: it is brought all the same."""
    plays = Plays(library)
    await brought(library, "C1")
    library.world.evict("C1")
    await library.round()
    await library.want("C1", again=True)
    await library.round()
    assert library.world.in_process == ["C1"]
    library.world.tick()
    await library.round()
    await library.jobs()
    assert plays.done["C1"] == 2


async def test_the_oldest_in_the_pool_are_fetched_first_and_priorities_before_them(
    library: Library, server: Server
) -> None:
    world = library.world
    library.again(lists="html", ahead=1, details=False)
    for barcode in ("C3", "C1", "C2"):  # C3 leaves first
        world.add(barcode, state="converted")
        world.tick(hours=5)
    world.add("C0", state="converted")
    await library.round()
    await library.want("C1", "C2", "C3")
    await library.want("C0", priority=5)
    for _ in range(4):
        await library.round()
        await library.jobs()
    fetched = [path.rpartition("/")[2][:2] for m, path, _ in server.log if m == "GET" and ".gpg" in path]
    assert fetched == ["C0", "C3", "C1", "C2"]


async def test_what_is_urgent_goes_before_what_was_offered_already(library: Library, server: Server) -> None:
    library.again(ahead=1, details=False)
    library.world.add("C1", "C2", "C3", state="converted")
    await library.round()
    await library.want("C1", "C2")
    await library.round()
    await library.want("C3", priority=5)
    await library.runner.look()
    await library.jobs()
    await library.round()
    assert library.listing() == ["C3"]


async def test_a_sample_of_several_states_is_fair(library: Library) -> None:
    """900 and 100: of each a tenth, within six standard deviations."""
    from dittohead.contract.catalogue import Told

    catalogue = library.keep.catalogue
    await catalogue.tell("x", [Told(key=f"a{n}", state="a") for n in range(900)])
    await catalogue.tell("x", [Told(key=f"b{n}", state="b") for n in range(100)])
    for states in (["a", "b"], ["b", "a"]):
        some = await catalogue.pick("x", states, [""], 500, sample=True)
        of_b = sum(entry.state == "b" for entry in some)
        assert len({entry.key for entry in some}) == 500
        assert 20 <= of_b <= 80


# -- what GRIN says of a volume ----------------------------------------------------------------


async def test_details_of_what_is_fetched_and_of_what_is_refused_are_kept(
    library: Library, server: Server
) -> None:
    world = library.world
    world.add("C1", state="converted")
    world.add("N1", state="forbidden")
    await library.round()
    world.add("N1", state="available")
    await library.tell("refresh")
    await library.round()
    world.books["N1"].state = "forbidden"
    world.books["N1"].details = ("NOT_AVAILABLE_FOR_DOWNLOAD",)  # a row shorter than the header
    await library.want("C1", "N1")
    await library.round()
    await library.round()
    assert (await library.entry("C1")).attributes["details"] == {
        "State": "CHECKED_IN", "Viewability": "VIEW_FULL", "Source Library Bibkey": "b123",
    }  # fmt: skip
    assert (await library.entry("N1")).attributes["details"] == {"State": "NOT_AVAILABLE_FOR_DOWNLOAD"}
    assert sum("_barcode_search" in path for _, path, _ in server.log) == 2


async def test_work_goes_on_where_grin_gives_no_details(library: Library, server: Server) -> None:
    library.world.add("C1", "C2", state="converted")
    server.fail("_barcode_search", "404", times=9)
    await library.round()
    await library.want("C1", "C2")
    assert await library.round() == 2
    await library.round()
    assert sum("_barcode_search" in path for _, path, _ in server.log) == 1


# -- one volume, or GRIN ------------------------------------------------------------------------


async def test_one_archive_that_head_fails_of_holds_up_no_other_and_no_requests(
    library: Library, server: Server
) -> None:
    world = library.world
    world.add("C1", "C2", state="converted")
    world.add("A1")
    await library.round()
    await library.want("C1", "C2", "A1")
    server.fail("C1.tar.gz.gpg", "500", times=100)
    assert await library.round() == 1
    assert world.in_process == ["A1"]
    for _ in range(2):
        await library.runner.look()
    assert await at(library, "C1") == ("set_aside", "GRIN answers with 500, 3 times")
    server.faults.clear()
    await library.want("C1")
    assert await library.round() == 1


async def test_where_grin_fails_for_all_nothing_is_set_aside(library: Library, server: Server) -> None:
    library.world.add(*(f"C{n}" for n in range(5)), state="converted")
    await library.round()
    await library.want(*(f"C{n}" for n in range(5)))
    server.fail(".gpg", "500", times=1000)
    for _ in range(5):
        with pytest.raises(TransientError):
            await library.runner.look()
    server.faults.clear()
    assert await library.round() == 5


# -- other options while it runs -----------------------------------------------------------------


async def test_another_rate_holds_at_once_and_of_two_the_lower(library: Library, server: Server) -> None:
    source, keep = library.source, library.keep
    slow = library.options.model_copy(update={"rate": 3.0, "connections": 2, "downloads": 1})
    async with source.connect(library.options, keep):
        limits = source._shared(library.options, keep).access.limits
        assert limits.rate == 100_000
        async with source.connect(slow, keep):
            assert source._shared(slow, keep).access.limits is limits
            assert (limits.rate, limits._open._most, limits._downloads._most) == (3.0, 2, 1)
        assert limits.rate == 100_000
    async with source.connect(slow, keep):
        assert limits.rate == 3.0
        limits.throttled(0)
        assert limits.rate == 1.5
    async with source.connect(library.options, keep):
        assert limits.rate == 50_000  # throttled all the same


async def test_lists_of_another_form_begin_anew(
    library: Library, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the middle of a text list, and then config.yaml says html; and the other way round."""
    library.world.add(*(f"A{n}" for n in range(7)))

    class Killed(BaseException):
        pass

    def point(name: str) -> None:
        if name == "source.told":
            raise Killed

    for before, after in (("text", "html"), ("html", "text")):
        library.again(lists=before, increment=1e9)
        await library.tell("refresh")
        with monkeypatch.context() as patch:
            patch.setattr("dittohead.system.fail_points.point", point)
            with pytest.raises(Killed):
                await library.round()
        library.again(lists=after)
        await library.round()
    assert set((await library.states()).values()) == {"available"}


async def test_a_catalogue_of_another_library_is_not_mixed_with_it(library: Library) -> None:
    library.world.add("A1")
    await library.round()
    library.again(library="OTHER")
    with pytest.raises(TargetError, match="of the library LIB, and config.yaml says OTHER"):
        await library.round()
    assert await library.states() == {"A1": "available"}


async def test_a_volume_the_inbox_would_ignore_is_set_aside_with_the_reason(library: Library) -> None:
    """Names that a site ignores are known to the engine alone."""
    long = "L" * 200 + "é" * 25
    library.world.add(long, "._x", "Thumbs.db", state="converted")
    await library.round()
    known = await library.states()
    await library.want(*known)
    await library.round()
    for barcode in known:
        entry = await library.entry(barcode)
        assert (entry.stage, bool(entry.reason)) == ("set_aside", True), barcode
    assert read_tree(library.inbox) == {}
