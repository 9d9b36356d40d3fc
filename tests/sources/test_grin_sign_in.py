"""Signing in to GRIN: a person's consent, service accounts, tokens renewed in time, and what ends it."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest

from dittohead.model.errors import ItemError, SourceStopped, TransientError
from dittohead.sources.grin.client import session
from dittohead.sources.grin.options import GrinOptions
from dittohead.sources.grin.sign_in import GrinSignIn, OAuthToken, read_client
from dittohead.system import log
from tests.support.grin import Server, serving
from tests.support.grin.library import Library
from tests.support.ports import free_port

pytestmark = pytest.mark.service


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as made:
        yield made


@pytest.fixture
def library(tmp_path: Path, server: Server) -> Iterator[Library]:
    made = Library(tmp_path, server, redirect_port=free_port())
    yield made
    made.harness.store.close()


class Browser:
    """A person with a browser: opens the address that is shown, and maybe pastes what it is led to."""

    def __init__(self, *, pastes: bool = False, spoils: str = "") -> None:
        self.pastes, self.spoils = pastes, spoils
        self.said: list[str] = []
        self.led: asyncio.Queue[str] = asyncio.Queue()
        self.tasks: list[asyncio.Task[None]] = []

    def say(self, text: str) -> None:
        self.said.append(text)
        if text.startswith("http"):
            self.tasks.append(asyncio.get_running_loop().create_task(self._open(text)))

    async def _open(self, address: str) -> None:
        async with aiohttp.ClientSession() as browser:
            async with browser.get(address, allow_redirects=False) as answer:
                assert answer.status == 302, await answer.text()
                back = answer.headers["Location"]
            if self.spoils:
                back = (
                    back.replace("state=", "state=x")
                    if self.spoils == "state"
                    else f"{back.split('?')[0]}?error=access_denied"
                )
            if self.pastes:
                self.led.put_nowait(back)
                return
            async with browser.get(back) as page:
                assert "You may close this page" in await page.text()

    async def ask(self, text: str) -> str:
        return await self.led.get()


async def authorize(library: Library, browser: Browser) -> str:
    return await library.source.authorize(library.options, library.keep, browser)


@pytest.mark.parametrize("pastes", [False, True])
async def test_a_persons_consent_comes_back_to_a_port_or_is_pasted(
    library: Library, server: Server, pastes: bool
) -> None:
    browser = Browser(pastes=pastes)
    said = await authorize(library, browser)
    await asyncio.gather(*browser.tasks)
    assert said == "someone@library.example is signed in; a running daemon goes on by itself"
    assert stat.S_IMODE(library.token.stat().st_mode) == 0o600
    assert stat.S_IMODE(library.token.parent.stat().st_mode) == 0o700
    asked = parse_qs(urlsplit(browser.said[1]).query)
    assert (asked["access_type"], asked["prompt"]) == (["offline"], ["consent"])
    assert asked["redirect_uri"] == [f"http://127.0.0.1:{library.options.redirect_port}"]
    library.world.add("A1")
    await library.round()
    assert await library.states() == {"A1": "available"}
    assert server.sign_in.refreshes == 0


async def test_a_port_that_is_taken_leaves_pasting(library: Library) -> None:
    taken = await asyncio.start_server(lambda r, w: None, "127.0.0.1", library.options.redirect_port)
    async with taken:
        browser = Browser(pastes=True)
        await authorize(library, browser)
    assert any("cannot be listened at" in line for line in browser.said)


@pytest.mark.parametrize(
    ("spoils", "said"), [("state", "answer to another sign-in"), ("error", "refused .access_denied.")]
)
async def test_an_answer_that_is_not_ours_or_a_refusal_signs_nobody_in(
    library: Library, spoils: str, said: str
) -> None:
    with pytest.raises(ItemError, match=said):
        await authorize(library, Browser(spoils=spoils))
    assert not library.token.exists()


async def test_a_service_account_signs_in_by_itself(library: Library, server: Server) -> None:
    """The simulator checks signature, audience and times of the assertion."""
    library.secrets["client"] = server.sign_in.service_file(server.url)
    library.world.add("A1")
    await library.round()
    assert await library.states() == {"A1": "available"}
    assert server.sign_in.refreshes == 1
    assert "is a service account" in await authorize(library, Browser())


async def test_a_token_is_renewed_five_minutes_early_once_at_a_time(library: Library, server: Server) -> None:
    """Twenty that ask at once, and one POST; the refresh token stays."""
    library.sign_in(expires_in=299)
    before = OAuthToken.read(library.token)
    server.sign_in.delay_s = 0.05
    client = read_client(library.secrets["client"], "client")
    sign_in = GrinSignIn(library.token, "x", log.get())
    async with session(5) as opened:
        found = await asyncio.gather(*(sign_in.bearer(client, opened) for _ in range(20)))
    assert len(set(found)) == 1
    assert (server.sign_in.refreshes, server.sign_in.most_at_once) == (1, 1)
    after = OAuthToken.read(library.token)
    assert before is not None
    assert after is not None
    assert (after.refresh, after.access) == (before.refresh, found[0])
    assert after.expires_at > time.time() + 3000


async def test_a_token_that_is_good_for_longer_is_left(library: Library, server: Server) -> None:
    library.sign_in(expires_in=400)
    library.world.add("A1")
    await library.round()
    assert server.sign_in.refreshes == 0


async def test_a_new_refresh_token_is_kept_in_place_of_the_old(library: Library, server: Server) -> None:
    server.sign_in.rotates = True
    library.sign_in(expires_in=10)
    for _ in range(3):
        await library.round()
        kept = OAuthToken.read(library.token)
        assert kept is not None
        assert server.sign_in.refresh == {kept.refresh}
        library.again()
        token = json.loads(library.token.read_text()) | {"expires_at": time.time() + 10}
        library.token.write_text(json.dumps(token))


async def test_a_token_that_ended_early_is_renewed_where_grin_leads_to_its_sign_in(
    library: Library, server: Server
) -> None:
    """Not 401 but 302 to another host; the request is made once more, and nothing leaks."""
    server.sign_in.tokens.pop(library.sign_in())
    library.world.add("A1")
    await library.round()
    assert (await library.states(), server.sign_in.refreshes, server.leaked) == ({"A1": "available"}, 1, [])


async def test_the_end_of_a_sign_in_stops_the_source_until_somebody_signs_in(
    library: Library, server: Server
) -> None:
    library.sign_in(expires_in=10)
    server.sign_in.refresh.clear()
    with pytest.raises(
        SourceStopped, match=r"invalid_grant.*Type: dittohead source authorize google"
    ) as raised:
        await library.runner.look()
    assert not raised.value.over()
    os.utime(library.token, ns=(1, 1))
    library.sign_in()
    assert raised.value.over()
    await library.round()


async def test_nobody_has_signed_in_yet(library: Library) -> None:
    with pytest.raises(SourceStopped, match="nobody has signed in yet.*source authorize google"):
        await library.runner.look()


async def test_no_rights_stop_the_source_and_say_for_which_account(library: Library, server: Server) -> None:
    library.sign_in()
    server.allowed = False
    with pytest.raises(SourceStopped, match=r"403.*someone@library.example.*12 hours"):
        await library.runner.look()


@pytest.mark.parametrize("status", [500, 503])
async def test_a_token_endpoint_that_fails_for_a_while_ends_nothing(
    library: Library, server: Server, status: int
) -> None:
    """The old token is used while it is good; without one the source waits."""
    library.sign_in(expires_in=200)
    server.sign_in.answer = [(status, {"error": "server_error"})] * 50
    await library.runner.look()
    library.again()
    library.sign_in(expires_in=-1)
    server.sign_in.answer = [(status, {})]
    with pytest.raises(TransientError, match=f"answered {status}"):
        await library.runner.look()


async def test_a_kill_while_the_token_is_written_leaves_the_old_one(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.sign_in(expires_in=10)
    before = library.token.read_bytes()

    class Killed(BaseException):
        pass

    def point(name: str) -> None:
        if name == "file.durable":
            raise Killed

    monkeypatch.setattr("dittohead.system.fail_points.point", point)
    with pytest.raises(Killed):
        OAuthToken(access="a", expires_at=1.0, refresh="r").write(library.token)
    assert library.token.read_bytes() == before


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"web": {}}',
        '{"installed": {"client_id": "x"}}',
        '{"installed": {"client_id": "x", "auth_uri": "https://a", "token_uri": "http://evil.example/token"}}',
        '{"type": "service_account", "client_email": "x"}',
    ],
)
def test_a_client_file_that_is_none_says_what_to_do(text: str) -> None:
    with pytest.raises(ItemError, match="Download the JSON again"):
        read_client(text, "client")


async def test_a_private_key_that_is_none(library: Library, server: Server) -> None:
    file = json.loads(server.sign_in.service_file(server.url)) | {"private_key": "no key"}
    library.secrets["client"] = json.dumps(file)
    with pytest.raises(ItemError, match="private key cannot be read"):
        await library.runner.look()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"url": "http://books.example/libraries"}, "https://"),
        ({"library": "a/b"}, "letters, digits"),
        ({"full": "soon"}, "not a schedule"),
        ({"columns": {"_x": []}}, 'no list "_x"'),
        ({"columns": {"_failed": ["scanned"]}}, "barcode or file"),
        ({"batch": 201}, "less than or equal to 200"),
        ({"between": "9-10"}, "not a part of a day"),
    ],
)
def test_options_that_cannot_be_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        GrinOptions.model_validate({"library": "LIB", "client": "c", **given})


async def test_doctor_says_who_is_let_in_and_what_to_type_where_nobody_is(
    library: Library, server: Server
) -> None:
    found = [one async for one in library.source.examine(library.options, library.keep)]
    assert (found[0][0], "source authorize google" in found[0][1]) == (False, True)
    library.sign_in()
    found = [one async for one in library.source.examine(library.options, library.keep)]
    assert found == [(True, f"{library.options.base} lets someone@library.example in")]
