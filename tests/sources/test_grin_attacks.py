"""A GRIN, or somebody in its place, that answers with what nobody expects: nothing leaks, nothing stops."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from dittohead.model.errors import DittoheadError, SourceStopped, TransientError
from dittohead.sources.grin import details, raw, rows
from dittohead.sources.grin import refresh as refresh_module
from dittohead.sources.grin.client import session
from dittohead.sources.grin.limits import Most, Places, RateLimit
from dittohead.sources.grin.sign_in import GrinSignIn, OAuthToken, read_client
from dittohead.system import log
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


# -- where the bearer goes ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "link", ["{other}/_converted?first=9", "//{host}/_converted?first=9", "http://[?first=1"]
)
async def test_a_page_that_leads_to_another_host_gets_no_bearer_there(
    library: Library, server: Server, link: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The link to the next page is what the page says: it is followed on GRIN's own host alone."""
    there = link.format(other=server.accounts, host=server.accounts.removeprefix("http://"))

    def page(request: web.Request, name: str) -> web.Response:
        text = (
            '<table><tr class="heading"><td><span class="hd3">Filename</span></td></tr>'
            f'<tr><td>C1.tar.gz.gpg</td></tr></table><a href="{there}">Next</a>'
        )
        return web.Response(text=text, content_type="text/html")

    monkeypatch.setattr(server, "_html", page)
    library.again(lists="html")
    with pytest.raises(TransientError):
        await library.round()
    assert server.leaked == []


@pytest.mark.parametrize("where", ["http://[", "javascript:alert(1)", "//", "http://user:pw@127.0.0.1:1/x"])
async def test_a_redirect_that_leads_nowhere_ends_no_more_than_the_round(
    library: Library, server: Server, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": where})

    library.world.add("A1")
    guarded = server._guarded
    monkeypatch.setattr(server, "_guarded", lambda request, handler: away(request))
    with pytest.raises((SourceStopped, TransientError)):
        await library.round()
    monkeypatch.setattr(server, "_guarded", guarded)
    await library.round()
    assert (await library.states(), server.leaked) == ({"A1": "available"}, [])


# -- lists -----------------------------------------------------------------------------------------


async def test_lines_that_are_none_are_left_out_and_the_others_count(library: Library) -> None:
    """Bytes that are no text, control characters, names that turn their reading round, lines without end."""
    world = library.world
    world.add("A1")
    world.noise = [
        "\x1b[31mred", "a\u202eb", "a\x7fb", "x" * 300, "y" * 200_000, "\ufeff", "\tA9\t", "..", "-rf", "A2",
    ]  # fmt: skip
    await library.round()
    assert set(await library.states()) == {"A1", "A2", "A9", "-rf"}


async def test_bytes_that_are_no_text_make_no_name(tmp_path: Path) -> None:
    import gzip

    path = tmp_path / "list.gz"
    path.write_bytes(gzip.compress(b"A1\nB\xff1\n" + b"z" * (3 << 16) + b"\nA2\n"))
    found = [line async for _, part in raw.lines(path, 0) for line in part]
    assert len(found) == 4
    read = [rows.of_line(line, None, "LIB") for line in found]
    assert [row.barcode if row else None for row in read] == ["A1", None, None, "A2"]


def test_what_a_cell_says_is_shown_without_control_characters() -> None:
    page = rows.of_page(
        '<table><tr class="heading"><td>Barcode</td><td>Convert Failed Info</td></tr>'
        f"<tr><td>A1</td><td>\x1b[2J{'x' * 5000}<script>alert(1)</script></td></tr>"
        "<tr><td>A&#0;2</td></tr><tr><td><td></tr></table></table>",
        "http://h/_failed",
        "LIB",
    )
    (row,) = [row for row in page.rows if row.barcode == "A1"]
    assert row.attributes["info"].startswith("\\x1b[2Jxxx")
    assert len(row.attributes["info"]) <= 1010


async def test_a_list_without_an_end_is_given_up(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    library.world.bulk = 5000
    monkeypatch.setattr(raw, "_MOST", 10_000)
    with pytest.raises(TransientError, match="more than 10,000 bytes"):
        await library.round()
    assert list(library.keep.directory.rglob("*.part")) == []
    library.again(lists="html")
    monkeypatch.setattr(refresh_module, "_PAGE_MOST", 200)
    with pytest.raises(TransientError, match="more than 200 bytes"):
        await library.round()


# -- archives --------------------------------------------------------------------------------------


@pytest.mark.parametrize("etag", ['"é"', '"' + "x" * 2000 + '"'])
async def test_an_etag_that_no_request_can_name_is_one_volumes_fault(
    library: Library, server: Server, etag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = "tests.support.grin.server.etag"
    bad = unreadable("C1")
    from tests.support.grin.world import etag as good_etag

    monkeypatch.setattr(real, lambda data: etag if data == bad else good_etag(data))
    library.world.add("C1", "C2", state="converted")
    await library.round()
    await library.want("C1", "C2")
    for _ in range(3):
        await library.round()
    states = await library.states()
    assert states["C1"] == "converted/set_aside"
    assert library.listing() == ["C2"]


@pytest.mark.parametrize("length", ["-5", "1e9", "٤", ""])
async def test_a_length_that_is_no_number_is_asked_for_in_another_way(
    library: Library, server: Server, length: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The range of one byte names the whole."""
    server.no_length = True
    library.world.add("C1", state="converted")
    await library.round()
    await library.want("C1")
    assert await library.round() == 1


# -- answers to requests ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "Barcode\tStatus\nB9\tSuccess\n",  # of another volume
        "Barcode\tStatus\nA1\tNot allowed\x1b[2J to be downloaded\n" * 1,
        "Status\tBarcode\nSuccess\tA1\nOther error\tA1\n",  # twice
        "Barcode\tStatus\n" + "A1\tSuccess " + "x" * 5000,
        "\x00\x01",
        "Barcode\tStatus\n" + "x" * (2 << 20),
        "",
    ],
)
async def test_any_answer_to_a_request_leaves_a_volume_that_is_known(
    library: Library, server: Server, text: str
) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=text, content_type="text/plain")

    library.world.add("A1")
    await library.round()
    await library.want("A1")
    server.process_answer = answer
    with contextlib.suppress(DittoheadError):
        await library.runner.look()
    entry = await library.entry("A1")
    assert entry.state in ("requested", "unavailable", "available")
    assert entry.reason.isprintable()
    assert len(entry.reason) < 400
    assert set(await library.states()) == {"A1"}


def test_a_table_of_details_as_nobody_expects_it() -> None:
    wide = "\t".join(["Barcode", *(f"C{n}" for n in range(500))])
    found = details.table([wide, "\t".join(["a", *("x" * 900 for _ in range(500))]), "\t\t", "b", "A\tlast"])
    assert set(found) == {"a", "b"}
    assert found["a"] == {"C0": "last"}
    for lines in ([], [""], ["State\tViewability", "x\ty"]):
        with pytest.raises(TransientError):
            details.table(lines)


# -- tokens -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        {"access_token": "a\r\nX-Evil: 1", "expires_in": 3600},
        {"access_token": "", "expires_in": 3600},
        {"access_token": None, "expires_in": 3600},
        {"access_token": "é", "expires_in": 3600},
        {"access_token": "a", "expires_in": "nan"},
        {"access_token": "a", "expires_in": -1},
        {"access_token": "a", "expires_in": 1e300},
        {"access_token": ["a"], "expires_in": 3600},
        {"access_token": "a", "refresh_token": "b\n", "expires_in": 3600},
        {"expires_in": 3600},
    ],
)
async def test_what_is_no_token_is_not_kept(library: Library, server: Server, given: dict[str, Any]) -> None:
    library.sign_in(expires_in=-1)
    before = library.token.read_bytes()
    server.sign_in.answer = [(200, given)]
    with pytest.raises(TransientError, match="gave no token"):
        await library.runner.look()
    assert library.token.read_bytes() == before
    await library.round()  # the next answer is good


async def test_a_short_token_is_not_renewed_for_every_request(library: Library, server: Server) -> None:
    library.sign_in(expires_in=-1)
    server.sign_in.lasts_s = 120
    library.world.add("A1")
    for _ in range(3):
        await library.round()
    assert server.sign_in.refreshes == 1


async def test_another_clients_token_is_not_used(library: Library, server: Server) -> None:
    """The credential was replaced by a service account's: it signs in by itself."""
    library.sign_in(expires_in=-1)
    await library.round()
    assert OAuthToken.read(library.token).client.endswith("example")  # type: ignore[union-attr]
    library.secrets["client"] = server.sign_in.service_file(server.url)
    await library.round()
    kept = OAuthToken.read(library.token)
    assert kept is not None
    assert (kept.client, server.sign_in.refreshes) == ("robot@example.iam", 2)


async def test_a_token_endpoint_that_never_answers_ends_nothing(
    library: Library, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that asks, and nine that wait for it: the old token is used while it is good."""
    monkeypatch.setattr("dittohead.sources.grin.sign_in._TIMEOUT_S", 0.2)
    server.sign_in.delay_s = 3600.0
    access = library.sign_in(expires_in=200)
    client = read_client(library.secrets["client"], "client")
    sign_in = GrinSignIn(library.token, "x", log.get())
    async with session(5) as opened:
        found = await asyncio.gather(*(sign_in.bearer(client, opened) for _ in range(2)))
        assert set(found) == {access}
        token = json.loads(library.token.read_text()) | {"expires_at": time.time() - 1}
        library.token.write_text(json.dumps(token))
        late = GrinSignIn(library.token, "x", log.get())
        with pytest.raises(TransientError, match="no token was obtained"):
            await late.bearer(client, opened)
    assert server.sign_in.most_at_once == 1


# -- limits -----------------------------------------------------------------------------------------


async def test_turns_are_never_nearer_than_the_rate_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that only sleeping moves."""
    now = 100.0
    begun: list[float] = []

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr("dittohead.sources.grin.limits.time.monotonic", lambda: now)
    monkeypatch.setattr("dittohead.sources.grin.limits.asyncio.sleep", sleep)
    limits = RateLimit(Most(5.0, 3, 2))
    for number in range(40):
        async with limits.turn():
            begun.append(now)
            if number == 20:
                assert limits.throttled(7.0) == 7.0
    gaps = [after - before for before, after in itertools.pairwise(begun)]
    assert min(gaps) >= 0.2 - 1e-9
    assert gaps[20] >= 7.0
    assert min(gaps[21:]) >= 0.4 - 1e-9


async def test_places_grow_shrink_and_survive_who_gives_up() -> None:
    places = Places(1)
    held, most = 0, 0
    gate = asyncio.Event()

    async def hold() -> None:
        nonlocal held, most
        async with places.one():
            held += 1
            most = max(most, held)
            try:
                await gate.wait()
            finally:
                held -= 1

    tasks = [asyncio.create_task(hold()) for _ in range(8)]
    await asyncio.sleep(0)
    assert held == 1
    places.resize(3)
    for _ in range(3):
        await asyncio.sleep(0)
    assert held == 3
    tasks[0].cancel()
    tasks[4].cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert held == 3
    places.resize(1)
    gate.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (held, most, places._held) == (0, 3, 0)
