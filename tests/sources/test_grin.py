"""The grin source against a simulated GRIN: lists, requests, archives, and what may go wrong with each."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dittohead.contract.catalogue import SWITCH, Told
from dittohead.model.errors import DittoheadError, SourceStopped, TransientError
from dittohead.sources.grin import refresh as refresh_module
from dittohead.sources.grin import rows
from dittohead.sources.grin.options import VOLUME
from dittohead.system import disk_space
from tests.support.grin import Server, serving, unreadable
from tests.support.grin.library import Library

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


# -- a volume's way --------------------------------------------------------------------------


async def test_asked_for_converted_fetched_and_stored(library: Library) -> None:
    """From wanted to stored, with each turn in its history."""
    world = library.world
    world.add("32101081977728", "32101064781634")
    await library.round()
    assert await library.want("32101081977728") == "1 volume is now wanted"
    await library.round()
    assert world.in_process == ["32101081977728"]
    await library.round()
    assert (await library.states())["32101081977728"] == "in_process/wanted"
    world.tick()
    assert await library.round() == 1
    archive = unreadable("32101081977728")
    assert library.in_inbox("32101081977728") == {b"32101081977728.tar.gz.gpg": archive}
    await library.jobs()
    assert await library.states() == {
        "32101081977728": "converted/stored",
        "32101064781634": "available",
    }
    assert world.asked == {"32101081977728": 1}
    history = [c.state for c in await library.keep.catalogue.history(VOLUME, "32101081977728")]
    assert [s for n, s in enumerate(history) if s not in history[:n]] == [
        "converted", "in_process", "requested", "available",
    ]  # fmt: skip
    assert await library.counts_hold()


@pytest.mark.parametrize("lists", ["text", "all", "html"])
@pytest.mark.parametrize("next_by", ["first", "ctoken"])
async def test_lists_in_every_form_tell_the_same(
    library: Library, server: Server, lists: str, next_by: str
) -> None:
    """Bare, with dates, as pages with either kind of link to the next one."""
    world, server.next_by = library.world, next_by
    world.prefix = True
    world.add(*(f"A{n}" for n in range(8)))
    world.add("C1", "C2", state="converted")
    world.add("P1", state="in_process")
    world.add("F1", state="failed")
    library.again(lists=lists, page=3)
    await library.round()
    states = await library.states()
    assert {k: v for k, v in states.items() if not k.startswith("A")} == {
        "C1": "converted",
        "C2": "converted",
        "P1": "in_process",
        "F1": "failed",
    }
    assert {states[f"A{n}"] for n in range(8)} == {"available"}
    assert (await library.entry("C1")).attributes["file"] == "LIB_C1.tar.gz.gpg"
    if lists == "html":
        assert (await library.entry("C1")).attributes["converted"] == "2026/01/05 08:00"


async def test_pages_are_read_by_their_header_whatever_its_order(library: Library, server: Server) -> None:
    server.html_order = ["converted", "link", "file", "scanned"]
    library.world.add("C1", state="converted")
    library.again(lists="html")
    await library.runner.look()
    assert (await library.entry("C1")).attributes == {
        "converted": "2026/01/05 08:00",
        "scanned": "2025/12/06 08:00",
        "processed": "2025/12/06 08:00",  # of the list of all books
        "file": "C1.tar.gz.gpg",
    }
    found = rows.of_page(
        '<table><tr class="heading"><td><span class="hd3">Scanned</span></td><td>Barcode</td></tr>'
        "<tr><td>2026/01/01 10:00</td><td> x1 </td></tr><tr><td></td></tr></table>",
        "http://h/_all_books",
        "LIB",
    )
    assert (found.rows, found.unread) == ([rows.VolumeRow("x1", "", {"scanned": "2026/01/01 10:00"})], 1)


def test_a_line_without_a_header_is_read_by_what_its_cells_look_like() -> None:
    """Two partners' orders; which date is which is only believed where the site says it."""
    link = "https://books.google.com/books?vid=X"
    one = rows.of_line(f"321\t2020/01/02 03:04\t2020/02/02 03:04\t\t\t{link}", None, "LIB")
    other = rows.of_line(f"{link}\t2020/02/02 03:04\t2020/01/02 03:04\t321", None, "LIB")
    assert one == other == rows.VolumeRow("321", "", {"scanned": "2020/01/02 03:04"})
    named = rows.of_line("2020/02/02 03:04\t321", ["converted", "barcode"], "LIB")
    assert named == rows.VolumeRow("321", "", {"converted": "2020/02/02 03:04"})
    wrong = rows.of_line("321\t2020/02/02 03:04", ["converted", "barcode"], "LIB")
    assert wrong == rows.VolumeRow("321", "", {"scanned": "2020/02/02 03:04"})
    assert rows.of_line("2020/02/02 03:04", None, "LIB") is None


async def test_each_raw_list_is_kept_with_its_digest(library: Library) -> None:
    library.world.add("A1")
    await library.round()
    kept = await library.keep.catalogue.last(VOLUME, "_all_books")
    assert kept is not None
    data = (library.keep.directory / kept.file).read_bytes()
    assert gzip.decompress(data) == b"A1\n"
    assert kept.sha256 == hashlib.sha256(data).hexdigest()


# -- lists that are not what they seem --------------------------------------------------------


async def test_a_list_that_is_cut_marks_nothing_as_gone(library: Library, server: Server) -> None:
    library.world.add(*(f"A{n}" for n in range(9)))
    await library.round()
    await library.tell("refresh")
    server.fail("_all_books", "cut", after=4)
    with pytest.raises(DittoheadError):
        await library.round()
    assert set((await library.states()).values()) == {"available"}
    listings = await library.keep.catalogue.listings(VOLUME, "_all_books", 3)
    assert [one.state for one in listings] == ["cut", "whole"]
    await library.round()  # the same wish, and now it comes whole
    assert (await library.keep.catalogue.listings(VOLUME, "_all_books", 1))[0].state == "whole"


async def test_a_list_that_lacks_too_much_is_believed_only_when_a_person_says_so(library: Library) -> None:
    library.world.add(*(f"A{n}" for n in range(50)))
    await library.round()
    for n in range(30):
        del library.world.books[f"A{n}"]
    await library.tell("refresh")
    await library.round()
    assert (await library.states())["A0"] == "available"
    assert (await library.keep.catalogue.listings(VOLUME, "_all_books", 1))[0].state == "doubtful"
    await library.tell("refresh", accept=True)
    await library.round()
    assert (await library.states())["A0"] == "gone"
    library.world.add("A0")
    await library.tell("refresh")
    await library.round()
    assert (await library.states())["A0"] == "available"


async def test_an_empty_pool_is_not_believed(library: Library) -> None:
    library.world.add(*(f"C{n}" for n in range(30)), state="converted")
    await library.round()
    library.world.converted.clear()
    await library.round()
    assert set((await library.states()).values()) == {"converted"}


async def test_barcodes_as_nobody_expects_them(library: Library) -> None:
    """Blanks go, capitals count, dots and dollars stay, what can be no folder is set aside with a reason."""
    library.world.add("uc1.$b12345", "W1KG123-I1KG456", "abc", "ABC", ".hidden")
    library.world.noise = ["32101000000001   ", "  ", "bad/slash", "two words", "32101000000001"]
    await library.round()
    assert set(await library.states()) == {
        "uc1.$b12345", "W1KG123-I1KG456", "abc", "ABC", "32101000000001",
    }  # fmt: skip
    await library.want("uc1.$b12345", "abc")
    await library.round()
    library.world.tick()
    assert await library.round() == 2
    assert library.listing() == ["abc", "uc1.$b12345"]


async def test_small_letters_of_a_person_find_the_volume(library: Library) -> None:
    library.world.add("HN1ABC")
    await library.round()
    assert await library.want("hn1abc", "nobody", "HN1ABC ") == (
        "1 volume is now wanted; 1 not known at GRIN (nobody)"
    )


@pytest.mark.parametrize("where", ["_converted", "_all_books"])
async def test_a_page_in_place_of_a_list_is_throttling(library: Library, server: Server, where: str) -> None:
    library.world.add("A1")
    server.fail(where, "throttled")
    with pytest.raises(TransientError, match="throttles"):
        await library.round()
    await library.round()
    assert await library.states() == {"A1": "available"}


async def test_only_what_was_scanned_lately_is_listed_between(library: Library, server: Server) -> None:
    library.world.add("A1")
    library.again(increment=1e-6)
    await library.round()
    await library.round()
    asked = [path for _, path, _ in server.log if "last_scan_date_start" in path]
    assert len(asked) == 1
    assert "last_scan_date_end" in asked[0]
    assert sum("_all_books?format=text" in path and "last" not in path for _, path, _ in server.log) == 1


# -- requests --------------------------------------------------------------------------------


@pytest.mark.parametrize("ask_by", ["post", "get"])
async def test_requests_come_in_batches_and_never_above_the_ceiling(
    library: Library, server: Server, ask_by: str
) -> None:
    barcodes = [f"B{n:06}" for n in range(130)]
    library.world.add(*barcodes)
    library.again(ask_by=ask_by, batch=50, in_process=120)
    await library.round()
    await library.want(*barcodes)
    await library.round()
    assert len(library.world.in_process) == 120
    assert [path for _, path, _ in server.log if len(path) > 7500] == []
    library.world.tick(most=15)
    await library.round()
    await library.round()
    assert set(library.world.asked.values()) == {1}
    assert len(library.world.in_process) == 115


async def test_each_volume_keeps_its_own_answer(library: Library) -> None:
    """Not allowed is permanently; being converted is not an error; another error is tried again, not forever."""
    world = library.world
    world.add("good")
    world.add("no", state="forbidden")
    world.add("odd", state="other")
    await library.round()
    world.add("others", state="available")
    await library.tell("refresh")
    await library.round()
    await library.want("good", "no", "odd", "others")
    world.books["others"].state = "in_process"  # asked for by somebody else since the lists were read
    await library.runner.look()
    states = await library.states()
    assert (states["good"], states["others"]) == ("requested/wanted", "in_process/wanted")
    assert states["no"] == "unavailable/set_aside"
    assert (await library.entry("no")).reason == "GRIN says: Not allowed to be downloaded"
    world.in_process.append("others")
    for _ in range(3):
        await library.runner.look()
    odd = await library.entry("odd")
    assert (odd.stage, odd.reason, world.asked["odd"]) == ("set_aside", "GRIN says: Other error", 3)
    assert world.asked["no"] == 1


async def test_what_grin_could_not_convert_is_set_aside_with_its_reason_and_tried_when_insisted(
    library: Library,
) -> None:
    library.again(lists="html")
    library.world.add("F1")
    library.world.failing = {"F1"}
    await library.round()
    await library.want("F1")
    await library.round()
    library.world.tick()
    await library.round()
    failed = await library.entry("F1")
    assert (failed.state, failed.stage) == ("failed", "set_aside")
    assert failed.reason == "Page images could not be read"
    library.world.failing.clear()
    await library.want("F1", again=True)
    await library.round()
    assert library.world.in_process == ["F1"]


async def test_a_full_queue_is_no_fault_and_nothing_is_asked_while_it_is(
    library: Library, server: Server
) -> None:
    library.world.add("A1", "A2")
    library.world.queue_limit = 0
    await library.round()
    await library.want("A1", "A2")
    await library.round()
    await library.round()
    assert await library.states() == {"A1": "available/wanted", "A2": "available/wanted"}
    assert sum("_process" in path and method == "POST" for method, path, _ in server.log) == 1


async def test_an_answer_that_is_lost_is_not_asked_for_again_while_it_is_in_process(
    library: Library, server: Server
) -> None:
    library.world.add("A1")
    await library.round()
    await library.want("A1")
    server.fail("_process", "loses-answer")
    with pytest.raises(TransientError):
        await library.round()
    assert (await library.states())["A1"] == "requested/wanted"
    await library.round()
    assert (await library.states())["A1"] == "in_process/wanted"
    assert library.world.asked == {"A1": 1}


async def test_what_never_reached_grin_is_asked_for_again(library: Library, server: Server) -> None:
    library.world.add("A1")
    await library.round()
    await library.want("A1")
    server.fail("_process", "no-answer")
    with pytest.raises(TransientError):
        await library.round()
    assert library.world.asked == {}
    await library.round()
    assert library.world.asked == {"A1": 1}


async def test_requests_are_paused_apart(library: Library) -> None:
    library.world.add("A1")
    library.world.add("C1", state="converted")
    await library.round()
    await library.keep.catalogue.tell(SWITCH, [Told(key="requests", state="paused")])
    await library.want("A1", "C1")
    assert await library.round() == 1
    assert library.world.asked == {}
    await library.keep.catalogue.tell(SWITCH, [Told(key="requests", state="on")])
    await library.round()
    assert library.world.asked == {"A1": 1}


# -- what to work on -------------------------------------------------------------------------


async def test_queues_are_drawn_from_up_to_a_limit(library: Library) -> None:
    library.world.add(*(f"C{n}" for n in range(5)), state="converted")
    library.world.add("A1")
    library.again(queues=["converted", "unconverted"], limit=3)
    await library.round()
    assert sorted(library.listing()) == ["C0", "C1", "C2"]
    await library.jobs()
    await library.round()
    assert {"C3", "C4"} <= set(library.listing())
    await library.jobs()
    await library.round()
    assert library.world.asked == {"A1": 1}


async def test_a_sample_a_limit_a_priority_and_a_dry_run(library: Library) -> None:
    library.world.add(*(f"A{n}" for n in range(20)))
    library.again(in_process=2)
    await library.round()
    dry = await library.tell("want", queue="unconverted", sample=5, dry_run=True)
    assert dry == "5 volumes would be wanted"
    assert set((await library.states()).values()) == {"available"}
    await library.tell("want", queue="unconverted", limit=4)
    await library.want("A19", priority=9)
    await library.round()
    assert set(library.world.in_process) == {"A19", "A0"}
    assert await library.tell("unwant", keys=["A1", "A2", "A19"]) == "3 volumes not wanted any more"


async def test_another_archive_of_a_stored_volume_is_fetched_when_asked_for(library: Library) -> None:
    library.world.add("C1", "C2", state="converted")
    await library.round()
    await library.want("C1", "C2")
    await library.round()
    await library.jobs()
    assert set((await library.states()).values()) == {"converted/stored"}
    library.world.again("C1", b"another archive")
    await library.tell("want", changed=True)
    assert await library.round() == 1
    assert library.in_inbox("C1") == {b"C1.tar.gz.gpg": b"another archive"}
    assert (await library.states())["C2"] == "converted/stored"


async def test_a_dry_run_says_what_would_be_fetched_and_does_nothing(library: Library) -> None:
    from dittohead.intake.look import DrySourceLook

    library.world.add("C1", "C2", state="converted")
    await library.round()
    await library.want("C1")
    ctx = DrySourceLook(library.harness.store, "google", "")
    async with library.runner.open() as upstream:
        await upstream.look(ctx)
    assert [(s.key, s.size) for s in ctx.found] == [("C1.tar.gz.gpg", 40_000)]
    assert (await library.states())["C1"] == "converted/wanted"


# -- archives --------------------------------------------------------------------------------


async def wanted_and_converted(library: Library, *barcodes: str) -> None:
    library.world.add(*barcodes, state="converted")
    await library.round()
    await library.want(*barcodes)


def ranges(server: Server) -> list[str]:
    return [h.get("Range", "") for m, p, h in server.log if m == "GET" and p.endswith(".gpg")]


async def bring(library: Library) -> None:
    """Fetch until the inbox has it; each try that fails is put off."""
    for _ in range(6):
        library.runner._waits.clear()
        await library.runner.bring()


def part_of(library: Library, barcode: str) -> int:
    """Bytes of an archive that lie on the disk while it is fetched."""
    parts = list((library.inbox / f".{barcode}").glob(".*.part"))
    return parts[0].stat().st_size if parts else 0


async def test_a_cut_archive_goes_on_at_the_byte(library: Library, server: Server) -> None:
    await wanted_and_converted(library, "C1")
    server.fail(".gpg", "cut", after=12_288, until=lambda: part_of(library, "C1") == 12_288)
    await library.round()
    await bring(library)
    assert library.in_inbox("C1") == {b"C1.tar.gz.gpg": unreadable("C1")}
    assert ranges(server) == ["", "bytes=12288-"]


async def test_what_a_kill_left_of_a_note_is_not_in_the_folder(library: Library, server: Server) -> None:
    await wanted_and_converted(library, "C1")
    server.fail(".gpg", "cut", after=12_288, until=lambda: part_of(library, "C1") == 12_288)
    await library.round()
    (library.inbox / ".C1" / ".123-0123456789abcdef.tmp").write_bytes(b'"e')
    await bring(library)
    assert library.in_inbox("C1") == {b"C1.tar.gz.gpg": unreadable("C1")}


async def test_where_ranges_are_ignored_it_begins_anew(library: Library, server: Server) -> None:
    await wanted_and_converted(library, "C1")
    server.no_ranges = True
    server.fail(".gpg", "cut", after=12_288, until=lambda: part_of(library, "C1") == 12_288)
    await library.round()
    await bring(library)
    assert library.in_inbox("C1") == {b"C1.tar.gz.gpg": unreadable("C1")}


async def test_a_stall_is_broken_off_and_gone_on_with(library: Library, server: Server) -> None:
    library.again(stall=0.3)
    await wanted_and_converted(library, "C1")
    server.fail(".gpg", "stall", after=8_192)
    await library.round()
    await bring(library)
    assert library.in_inbox("C1") == {b"C1.tar.gz.gpg": unreadable("C1")}


@pytest.mark.parametrize("when", ["before", "between"])
async def test_another_archive_is_never_joined_to_the_first(
    library: Library, server: Server, when: str
) -> None:
    """Changed between HEAD and GET, or between two parts."""
    await wanted_and_converted(library, "C1")
    await library.runner.look()
    if when == "between":
        server.fail(".gpg", "cut", after=12_288, until=lambda: part_of(library, "C1") == 12_288)
        await library.runner.bring()
    library.world.again("C1", b"n" * 30_000)
    await bring(library)
    assert library.in_inbox("C1") == {b"C1.tar.gz.gpg": b"n" * 30_000}


async def test_an_archive_of_which_head_gives_no_size(library: Library, server: Server) -> None:
    server.no_length = True
    await wanted_and_converted(library, "C1")
    assert await library.round() == 1
    assert library.in_inbox("C1") == {b"C1.tar.gz.gpg": unreadable("C1")}


async def test_no_byte_is_fetched_that_there_is_no_room_for(
    library: Library, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    await wanted_and_converted(library, "C1")
    monkeypatch.setattr(disk_space, "free", lambda path: 0)
    await library.round()
    assert ranges(server) == []
    assert "more free disk space" in library.runner.held


async def test_an_evicted_volume_is_asked_for_again_but_not_for_ever(library: Library) -> None:
    library.again(evictions=2)
    await wanted_and_converted(library, "C1")
    for turn in range(3):
        await library.runner.look()
        library.world.evict("C1")
        await library.runner.bring()
        if turn < 2:
            await library.runner.look()
            library.world.tick()
    entry = await library.entry("C1")
    assert (entry.stage, library.world.asked["C1"]) == ("set_aside", 2)
    assert entry.reason == "it left the pool of converted volumes before it was fetched, 3 times"
    assert library.listing() == []


async def test_a_sign_in_page_in_place_of_an_archive_stops_the_source_and_not_the_volume(
    library: Library, server: Server
) -> None:
    await wanted_and_converted(library, "C1")
    await library.runner.look()
    server.fail(".gpg", "login")
    with pytest.raises(SourceStopped, match="dittohead source authorize google"):
        await library.runner.bring()
    assert (await library.entry("C1")).stage == "fetching"
    await bring(library)
    assert library.in_inbox("C1") == {b"C1.tar.gz.gpg": unreadable("C1")}


@pytest.mark.parametrize("status", ["429", "503"])
async def test_retry_after_is_kept_by_everything_that_asks(
    library: Library, server: Server, status: str
) -> None:
    await wanted_and_converted(library, "C1")
    server.fail(".gpg", status, headers={"Retry-After": "1"})
    asked = len(server.log)
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(TransientError) as raised:
        await library.runner.look()
    assert raised.value.retry_after_s == 1
    first = len(server.log) - asked
    await library.round()
    assert loop.time() - began >= 1
    assert len(server.log) > asked + first
    assert library.listing() == ["C1"]


# -- rate ------------------------------------------------------------------------------------


async def test_rate_connections_and_downloads_stay_below_their_caps(library: Library, server: Server) -> None:
    """All that asks counts: lists, HEADs, archives, redirects."""
    server.redirect_each = 4
    library.world.add(*(f"A{n}" for n in range(5)))
    library.again(rate=40, connections=3, downloads=2, ahead=20, batch=1)
    began = time.monotonic()
    await wanted_and_converted(library, *(f"C{n}" for n in range(12)))
    await library.want(*(f"A{n}" for n in range(5)))
    await library.round()
    taken = time.monotonic() - began
    meter = server.meter
    assert len(library.listing()) == 12
    assert {"HEAD", "GET", "POST"} == {method for method, _, _ in server.log}
    # However late a request is on its way, and others are not: all of them together took so long.
    assert taken >= (len(server.log) - 1) / 40
    assert meter.most_running <= 3
    assert meter.most_downloads <= 2


async def test_a_redirect_on_the_same_host_is_followed_with_the_bearer(
    library: Library, server: Server
) -> None:
    server.redirect_each = 2
    await wanted_and_converted(library, "C1")
    assert await library.round() == 1
    assert server.leaked == []


async def test_the_bearer_never_reaches_another_host(library: Library, server: Server) -> None:
    library.world.add("A1")
    server.fail("_in_process", "off-host", times=2)
    with pytest.raises(SourceStopped):
        await library.round()
    assert server.leaked == []


def secrets_in(where: Path) -> list[str]:
    """Files outside of the token's own that hold a secret."""
    found = []
    for path in where.rglob("*"):
        if path.is_file() and path.name != "token.json" and b"not-to-be-seen" in path.read_bytes():
            found.append(str(path))
    return found


async def test_no_secret_stands_anywhere_else(library: Library, server: Server, capsys: Any) -> None:
    library.world.add("A1")
    await library.round()
    server.allowed = False
    with pytest.raises(SourceStopped) as raised:
        await library.round()
    assert "not-to-be-seen" not in str(raised.value) + json.dumps(library.runner.shown())
    assert "someone@library.example" in str(raised.value)
    assert secrets_in(library.harness.root) == []
    assert "not-to-be-seen" not in capsys.readouterr().out
