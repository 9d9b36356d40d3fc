"""Who may come in, and who may not, though they try."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import re
import stat
from collections.abc import AsyncIterator
from http.cookies import SimpleCookie
from pathlib import Path

import aiohttp
import pytest
import structlog

from dittohead.admin.tokens import AccessTokens, parse
from dittohead.web.server.access import ACCESS
from dittohead.web.server.attempt_limit import ALL_BURST, BURST, AttemptLimit
from dittohead.web.server.sessions import Sessions, cookie_of
from tests.support.web_harness import OPERATOR, READER, TOKENS, WebHarness, call

pytestmark = pytest.mark.usefixtures("nothing_blocks_the_loop")

PROXY = {
    "from": ["127.0.0.9"],
    "operators": ["carol", "@keepers"],
    "readers": ["dave"],
    "groups": "X-Remote-Groups",
}


@pytest.fixture
async def web_harness(tmp_path: Path) -> AsyncIterator[tuple[WebHarness, aiohttp.ClientSession]]:
    made = WebHarness(tmp_path / "root", names=["archive.example.org"], proxy=PROXY)
    async with made.serving() as client:
        yield made, client


Served = tuple[WebHarness, aiohttp.ClientSession]


# -- tokens --------------------------------------------------------------------------------------


async def test_a_token_gives_its_role_and_nothing_else_does(web_harness: Served) -> None:
    """Nobody reads without one; readers do not act; a token in the URL or in another scheme is none."""
    _, client = web_harness
    assert (await call(client, "/api/v1/jobs"))[0] == 401
    assert (await call(client, "/api/v1/jobs", token=READER))[0] == 200
    assert (await call(client, "/api/v1/jobs/x/retry", "POST", token=READER))[0] == 403
    assert (await call(client, "/api/v1/jobs/x/retry", "POST", token=OPERATOR))[0] == 404
    for query in ("token", "access_token", "bearer"):
        assert (await call(client, f"/api/v1/jobs?{query}={OPERATOR}"))[0] == 401
    basic = {"Authorization": f"Basic {OPERATOR}"}
    assert (await call(client, "/api/v1/jobs", headers=basic))[0] == 401
    assert (await call(client, "/healthz"))[0] == 200


@pytest.mark.parametrize(
    "wrong", [OPERATOR[:-1], OPERATOR + "x", OPERATOR.upper(), "", "é" * 30, "a b", "sha256:00"]
)
async def test_a_wrong_token_is_refused_also_where_everybody_may_read(tmp_path: Path, wrong: str) -> None:
    """Anyone who shows one wants to be somebody: to be taken for anybody would hide the mistake."""
    made = WebHarness(tmp_path / "root", read="open")
    async with made.serving() as client:
        assert (await call(client, "/api/v1/jobs"))[0] == 200
        header = {"Authorization": b"Bearer " + wrong.encode()}
        status, said = await call(
            client, "/api/v1/jobs", headers={k: v.decode("latin-1") for k, v in header.items()}
        )
        assert status == 401
        assert OPERATOR not in str(said)


def test_lines_of_the_file_are_refused_by_number_and_never_shown() -> None:
    """Each wrong line opens nothing, and says nothing of what it holds."""
    text = (
        f"# people\n\noperator alice {OPERATOR}\nreader eve short-secret\nking carl {READER}\n"
        f"reader {READER}\nreader dave {OPERATOR}\nreader frank sha256:abc\noperator <b> {READER}x\n"
    )
    found, problems = parse(text)
    assert [token.name for token in found] == ["alice"]
    assert [problem.partition(":")[0] for problem in problems] == [f"line {n}" for n in (4, 5, 6, 7, 8, 9)]
    assert not any(secret in "".join(problems) for secret in ("short-secret", OPERATOR, READER, "abc"))


def test_a_hashed_token_opens_as_its_token_does_and_not_as_its_hash() -> None:
    """What stands in the file is of no use to who reads the file."""
    hashed = hashlib.sha256(READER.encode()).hexdigest()
    tokens = AccessTokens(lambda: f"reader bob sha256:{hashed}\n")
    assert tokens.refresh() == []
    found = tokens.find(READER)
    assert found is not None
    assert found.name == "bob"
    assert tokens.find(hashed) is None
    assert tokens.find(f"sha256:{hashed}") is None


def test_every_token_is_compared_whichever_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """In constant time each, by digest: how soon the answer comes says nothing of what is right."""
    compared: list[int] = []
    real = hmac.compare_digest
    monkeypatch.setattr(
        "dittohead.admin.tokens.hmac.compare_digest", lambda a, b: compared.append(len(b)) or real(a, b)
    )
    tokens = AccessTokens(lambda: TOKENS)
    tokens.refresh()
    for given in (OPERATOR, READER, "x", ""):
        compared.clear()
        tokens.find(given)
        assert compared == [32, 32]


async def test_a_token_that_is_taken_out_ends_its_sessions_too(web_harness: Served) -> None:
    """The file is read again; nobody restarts a daemon to shut somebody out."""
    made, client = web_harness
    cookie = {"Cookie": await made.signed_in(client)}
    assert (await call(client, "/api/v1/jobs", headers=cookie))[0] == 200
    made.write_tokens(f"reader bob {READER}\n")
    async with asyncio.timeout(20):
        while (await call(client, "/api/v1/jobs", token=OPERATOR))[0] == 200:
            await asyncio.sleep(0.05)
    assert (await call(client, "/api/v1/jobs", headers=cookie))[0] == 401
    assert (await call(client, "/api/v1/jobs", token=READER))[0] == 200


async def test_a_file_that_cannot_be_read_opens_nothing(web_harness: Served) -> None:
    """And the daemon goes on."""
    made, client = web_harness
    made.credential.unlink()
    async with asyncio.timeout(20):
        while (await call(client, "/api/v1/jobs", token=OPERATOR))[0] == 200:
            await asyncio.sleep(0.05)
    assert (await call(client, "/healthz"))[0] == 200


# -- sessions and forms --------------------------------------------------------------------------


async def test_a_session_acts_only_with_its_forms_secret(web_harness: Served) -> None:
    """By form field or by header; another session's, none, or nobody's is refused."""
    made, client = web_harness
    cookie = await made.signed_in(client)
    other = await made.csrf(client, await made.signed_in(client))
    own = await made.csrf(client, cookie)
    assert own != other
    path = "/api/v1/jobs/x/retry"
    for headers, status in (
        ({}, 403),
        ({"X-CSRF-Token": other}, 403),
        ({"X-CSRF-Token": "é"}, 403),
        ({"X-CSRF-Token": own}, 404),
    ):
        assert (await call(client, path, "POST", headers={"Cookie": cookie} | headers))[0] == status
    form = await call(client, "/logout", "POST", headers={"Cookie": cookie}, data={"csrf": other})
    assert form[0] == 403
    assert (await call(client, "/api/v1/jobs", headers={"Cookie": cookie}))[0] == 200


async def test_a_page_of_another_origin_can_send_nothing(web_harness: Served) -> None:
    """Not even with the right secret, nor sign somebody in as somebody else."""
    for headers in [
        {"Origin": "https://evil.example.org"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "https://archive.example.org.evil.org"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ]:
        made, client = web_harness
        cookie = await made.signed_in(client)
        secret = await made.csrf(client, cookie)
        sent = {"Cookie": cookie, "X-CSRF-Token": secret, **headers}
        assert (await call(client, "/api/v1/jobs/x/retry", "POST", headers=sent))[0] == 403
        assert (await call(client, "/login", "POST", headers=headers, data={"token": OPERATOR}))[0] == 403
        # Programs that send a token with each request run in no browser.
        assert (await call(client, "/api/v1/jobs/x/retry", "POST", headers=headers, token=OPERATOR))[0] == 404


async def test_forms_of_our_own_pages_are_taken_under_every_name(web_harness: Served) -> None:
    """Also where the proxy puts its own name for ours into Host."""
    made, client = web_harness
    for origin in (made.base, "https://archive.example.org"):
        headers = {"Origin": origin, "Sec-Fetch-Site": "same-origin"}
        assert (await call(client, "/login", "POST", headers=headers, data={"token": OPERATOR}))[0] == 303


async def test_the_cookie_is_closed_in(web_harness: Served) -> None:
    """Out of reach of scripts and other sites; under https it can come from this host alone."""
    made, client = web_harness
    async with client.post("/login", data={"token": OPERATOR}, allow_redirects=False) as answer:
        said = answer.headers["Set-Cookie"].lower()
    assert said.startswith("dittohead=")
    assert all(word in said for word in ("httponly", "samesite=strict", "path=/", "max-age=43200"))
    assert "secure" not in said
    async with made.client("127.0.0.9") as proxy:
        headers = {"X-Forwarded-Proto": "https"}
        async with proxy.post(
            "/login", data={"token": OPERATOR}, headers=headers, allow_redirects=False
        ) as answer:
            said = answer.headers["Set-Cookie"]
    assert said.startswith("__Host-dittohead=")
    assert "Secure" in said
    assert "Domain" not in said
    # Only a proxy decides that.
    assert (await made.signed_in(client, **{"X-Forwarded-Proto": "https"})).startswith("dittohead=")


async def test_signing_out_ends_the_session_for_good(web_harness: Served, tmp_path: Path) -> None:
    """A copy of the cookie is worth nothing afterwards, nor after a restart."""
    made, client = web_harness
    cookie = await made.signed_in(client)
    secret = await made.csrf(client, cookie)
    said = await call(client, "/logout", "POST", headers={"Cookie": cookie}, data={"csrf": secret})
    assert said[0] == 303
    assert (await call(client, "/api/v1/jobs", headers={"Cookie": cookie}))[0] == 401
    again = Sessions(made.harness.stations.state)
    await asyncio.to_thread(again.load)
    assert again.read(cookie.partition("=")[2]) is None


async def test_a_session_that_was_set_before_is_not_taken_over(web_harness: Served) -> None:
    """Signing in always begins a new one."""
    made, client = web_harness
    before = await made.signed_in(client, READER)
    async with client.post(
        "/login", data={"token": OPERATOR}, headers={"Cookie": before}, allow_redirects=False
    ) as answer:
        after = answer.headers["Set-Cookie"].partition(";")[0]
    assert after != before
    assert (await call(client, "/api/v1/jobs/x/retry", "POST", headers={"Cookie": before}))[0] == 403


def by_the_format_before(state: Path) -> str:
    """Return a cookie that would hold, of the same key, in the format of earlier versions."""
    key = bytes.fromhex((state / "http.key").read_text())
    text = json.dumps(["id", "mark", 1060.0]).encode()
    signature = hmac.digest(key, b"session\0" + text, hashlib.sha256)
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (text, signature))


def test_cookies_are_signed_end_and_are_not_forged(tmp_path: Path) -> None:
    """Another root's key, a changed bit, another time: no session."""
    now = [1000.0]
    (tmp_path / "other").mkdir()
    sessions, other = Sessions(tmp_path, now=lambda: now[0]), Sessions(tmp_path / "other", now=lambda: now[0])
    sessions.load()
    other.load()
    _, value = sessions.begin("mark", 60)
    assert sessions.read(value) is not None
    assert other.read(value) is None
    body, _, signature = value.partition(".")
    for forged in (
        body,
        f"{body}.",
        f".{signature}",
        f"{body}.{signature[:-2]}",
        f"{body[:-2]}AA.{signature}",
        f"{signature}.{body}",
        f"{body}.{signature}.x",
        "",
        "é.é",
        f"{body}.{signature}\udcff",
        "\udcff.\udcff",
        "." * 50,
        "." + value,
        by_the_format_before(tmp_path),
    ):
        assert sessions.read(forged) is None, forged
    now[0] += 60
    assert sessions.read(value) is None
    assert stat.S_IMODE((tmp_path / "http.key").stat().st_mode) == 0o600


def test_sessions_are_compared_in_constant_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By SHA-256, whole: the library would take SHA-1 by itself."""
    sessions = Sessions(tmp_path)
    sessions.load()
    _, value = sessions.begin("mark", 60)
    compared: list[int] = []
    real = hmac.compare_digest
    monkeypatch.setattr(
        "itsdangerous.signer.hmac.compare_digest", lambda a, b: compared.append(len(b)) or real(a, b)
    )
    assert sessions.read(value) is not None
    assert sessions.read(value[:-43] + "A" * 43) is None
    assert compared == [32, 32]


def test_a_new_key_ends_all_sessions(tmp_path: Path) -> None:
    """Who removes the key's file signs everybody out; a restart alone does not."""
    first = Sessions(tmp_path)
    first.load()
    _, value = first.begin("mark", 60)
    again = Sessions(tmp_path)
    again.load()
    assert again.read(value) is not None
    (tmp_path / "http.key").unlink()
    again.load()
    assert again.read(value) is None


def test_a_forms_secret_is_no_cookie_and_no_cookie_a_forms_secret(tmp_path: Path) -> None:
    """One key, two purposes, each said in what is signed."""
    sessions = Sessions(tmp_path)
    sessions.load()
    session, value = sessions.begin("mark", 60)
    body = value.partition(".")[0]
    assert sessions.read(f"{body}.{sessions.csrf(body)}") is None
    assert sessions.csrf(session.id) != sessions.csrf(session.mark)


def test_of_two_cookies_of_a_name_one_was_tossed_in() -> None:
    """Neither is believed, whichever comes first."""
    assert cookie_of("a=1; dittohead=x; b=2", "dittohead") == "x"
    assert cookie_of("dittohead=x; dittohead=y", "dittohead") == ""
    assert cookie_of("xdittohead=x", "dittohead") == ""
    assert (
        SimpleCookie("dittohead=x; dittohead=y")["dittohead"].value == "y"
    )  # what a plain reader would take


async def test_the_way_back_stays_with_us(web_harness: Served) -> None:
    """A link to the sign-in page cannot end elsewhere."""
    for given, leads_to in [
        ("/jobs?q=a", "/jobs?q=a"),
        ("//evil.org", "/"),
        ("/\\evil.org", "/"),
        ("https://evil.org", "/"),
        ("/\t/evil.org", "/"),
        ("/a\r\nSet-Cookie: x=y", "/"),
        ("javascript:alert(1)", "/"),
        ("", "/"),
    ]:
        _, client = web_harness
        data = {"token": OPERATOR, "next": given}
        async with client.post("/login", data=data, allow_redirects=False) as answer:
            assert answer.headers["Location"] == leads_to
        async with client.get("/login", params={"next": '"><script>'}) as answer:
            assert '"><script>' not in await answer.text()


async def test_people_are_led_to_the_form_and_programs_are_not(web_harness: Served) -> None:
    """A browser asks for text/html."""
    _, client = web_harness
    async with client.get("/metrics?a=b", headers={"Accept": "text/html"}, allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (303, "/login?next=/metrics?a%3Db")
    # From a link elsewhere the cookie is held back: asked for again from here, it comes.
    headers = {"Accept": "text/html", "Sec-Fetch-Site": "cross-site"}
    async with client.get('/metrics?a="><script>', headers=headers) as answer:
        text = await answer.text()
        assert (answer.status, text.count("<"), 'content="0;url=/metrics?a=' in text) == (200, 4, True)
    async with client.get("/api/v1/jobs", headers={"Accept": "text/html"}) as answer:
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


# -- guessing ------------------------------------------------------------------------------------


async def wrong(client: aiohttp.ClientSession, way: str, number: int) -> int:
    """Show a wrong token, by the form or as a program does; return the answer's status."""
    if way == "form":
        return (await call(client, "/login", "POST", data={"token": f"guess-{number}"}))[0]
    return (await call(client, "/api/v1/jobs", token=f"guess-{number}"))[0]


@pytest.mark.parametrize(("way", "refused"), [("form", 403), ("bearer", 401)])
async def test_who_guesses_is_slowed_down_and_nobody_is_locked_out(
    web_harness: Served, way: str, refused: int
) -> None:
    """The log names the address, and nothing of what was tried; a right token comes in also from there."""
    made, client = web_harness
    with structlog.testing.capture_logs() as logged:
        for number in range(BURST):
            assert await wrong(client, way, number) == refused
        assert await wrong(client, way, BURST) == 429
        async with client.post("/login", data={"token": "another"}, allow_redirects=False) as answer:
            assert (answer.status, 0 < int(answer.headers["Retry-After"]) <= 6) == (429, True)
        assert (await call(client, "/login", "POST", data={"token": OPERATOR}))[0] == 303
        assert (await call(client, "/api/v1/jobs", token=READER))[0] == 200
        async with made.client("127.0.0.3") as other:
            assert await wrong(other, way, 0) == refused
    failed = [line for line in logged if line["event"] == "http.login_failed"]
    assert [line["address"] for line in failed] == ["127.0.0.1", "127.0.0.3"]
    assert "guess" not in str(logged)
    assert OPERATOR not in str(logged)


@pytest.mark.parametrize("way", ["form", "bearer"])
async def test_wrong_tokens_from_everywhere_keep_no_right_one_out(web_harness: Served, way: str) -> None:
    """Any user of this machine has sixteen million addresses, and a household of IPv6 2^64."""
    made, client = web_harness
    pace = made.app[ACCESS].limit = AttemptLimit(now=lambda: 0.0)
    for number in range(ALL_BURST):
        assert pace.wrong(f"2001:db8:{number:x}::1") == 0
    for number in range(20):
        async with made.client(f"127.1.{number}.9") as other:
            assert await wrong(other, way, number) == 429
    assert (await call(client, "/login", "POST", data={"token": OPERATOR}))[0] == 303
    assert (await call(client, "/api/v1/jobs", token=OPERATOR))[0] == 200


def test_ten_thousand_tries_from_as_many_addresses_come_to_few() -> None:
    """In all, and in memory; of IPv6 a household counts as one."""
    now = [0.0]
    pace = AttemptLimit(now=lambda: now[0])
    let_in = 0
    for number in range(10_000):
        address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        if pace.wait_s(address) == 0:
            let_in += 1
            pace.failed(address)
    assert let_in == 300
    assert len(pace._by_address) <= 4096
    now[0] += 3600
    for number in range(BURST):
        assert pace.wait_s(f"2001:db8::{number:x}") == 0
        pace.failed(f"2001:db8::{number:x}")
    assert 0 < pace.wait_s("2001:db8::ffff") <= 6
    assert pace.wait_s("2001:db8:0:1::1") == 0
    for _ in range(BURST):
        assert pace.wrong("::ffff:192.0.2.1") == 0
    assert pace.wrong("192.0.2.1") > 0  # the same, as a proxy may write it
    assert pace.wrong("::ffff:192.0.2.2") == 0
    # Who goes on all the same waits no longer for it.
    assert sum(pace.wrong("192.0.2.1") > 0 for _ in range(1000)) == 1000
    assert pace.wait_s("192.0.2.1") <= 6


# -- the proxy -----------------------------------------------------------------------------------


async def test_the_proxys_word_counts_and_nobody_elses(web_harness: Served) -> None:
    """By name and by group; the header from anywhere else is refused, not only left out."""
    made, client = web_harness
    path = "/api/v1/jobs/x/retry"
    async with made.client("127.0.0.9") as proxy:
        for headers, status in (
            ({"X-Remote-User": "carol"}, 200),
            ({"X-Remote-User": "dave"}, 200),
            ({"X-Remote-User": "erin", "X-Remote-Groups": "a, keepers"}, 200),
            ({"X-Remote-User": "erin", "X-Remote-Groups": "keepers2"}, 403),
            ({"X-Remote-User": "@keepers"}, 400),
            ({"X-Remote-User": "*"}, 400),
            ({"X-Remote-User": ""}, 401),
            ({"X-Remote-Groups": "keepers"}, 401),
            ({"X-Remote-User": "carol, dave"}, 400),
            ({"X-Remote-User": "a\tb"}, 400),
            ({}, 401),
        ):
            assert (await call(proxy, "/api/v1/jobs", headers=headers))[0] == status, headers
        two = [("X-Remote-User", "erin"), ("X-Remote-User", "carol")]
        async with proxy.get("/api/v1/jobs", headers=two) as answer:
            assert answer.status == 400
        # A browser sends the proxy's sign-in by itself: a form must show its secret.
        assert (await call(proxy, path, "POST", headers={"X-Remote-User": "carol"}))[0] == 403
        async with proxy.get("/login", headers={"X-Remote-User": "carol"}) as answer:
            text = await answer.text()
        secret = text.split('name="csrf" value="')[1].partition('"')[0]
        headers = {"X-Remote-User": "carol", "X-CSRF-Token": secret}
        assert (await call(proxy, path, "POST", headers=headers))[0] == 404
        headers = {"X-Remote-User": "erin", "X-Remote-Groups": "keepers", "X-CSRF-Token": secret}
        assert (await call(proxy, path, "POST", headers=headers))[0] == 403
    with_token = {"X-Remote-User": "carol", "Authorization": f"Bearer {OPERATOR}"}
    assert (await call(client, "/api/v1/jobs", headers=with_token))[0] == 403
    for header in ("X-Remote-User", "x-remote-user", "X-Remote-Groups"):
        assert (await call(client, "/api/v1/jobs", headers={header: "carol"}))[0] == 403
    assert (await call(client, "/api/v1/jobs", headers={"X_Remote_User": "carol"}))[0] == 401


async def test_behind_the_proxy_each_address_has_its_own_tries(web_harness: Served) -> None:
    """Of the addresses it names, only the last, which it has seen itself, is believed."""
    made, _ = web_harness
    async with made.client("127.0.0.9") as proxy:
        for number in range(BURST + 1):
            headers = {"X-Forwarded-For": f"10.9.9.{number}, 192.0.2.1"}
            said = await call(proxy, "/login", "POST", headers=headers, data={"token": "x" * 20})
        assert said[0] == 429
        headers = {"X-Forwarded-For": "192.0.2.1, 192.0.2.2, 127.0.0.9"}
        assert (await call(proxy, "/login", "POST", headers=headers, data={"token": OPERATOR}))[0] == 303


# -- names and headers ---------------------------------------------------------------------------


async def test_requests_under_another_name_are_refused(web_harness: Served) -> None:
    """A page elsewhere may have its name pointed here, and would read all as its own (DNS rebinding)."""
    for host, status in [
        ("evil.example.org", 403),
        ("127.0.0.1.evil.org", 403),
        ("archive.example.org.evil.org", 403),
        ("127.0.0.1@evil.org", 403),
        ("", 403),
        ("a b", 403),
        ("archive.example.org", 401),
        ("ARCHIVE.example.org.:443", 401),
        ("localhost", 401),
        ("[::1]:8140", 401),
        ("127.0.0.1", 401),
    ]:
        _, client = web_harness
        said = await call(client, "/api/v1/jobs", headers={"Host": host})
        assert said[0] == status, said
        if status == 403:
            assert (await call(client, "/healthz", headers={"Host": host}))[0] == 403


async def test_every_answer_is_closed_in(web_harness: Served) -> None:
    """Errors and redirections too."""
    _, client = web_harness
    for path in ("/healthz", "/login", "/nowhere", "/api/v1/jobs", "/api/v1/jobs/x/retry"):
        async with client.get(path, headers={"Accept": "text/html"}, allow_redirects=False) as answer:
            said = answer.headers
        assert said["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'"), path
        assert "frame-ancestors 'none'" in said["Content-Security-Policy"]
        assert "unsafe" not in said["Content-Security-Policy"]
        assert said["X-Content-Type-Options"] == "nosniff"
        assert said["Referrer-Policy"] == "same-origin"
        assert said["Cross-Origin-Opener-Policy"] == said["Cross-Origin-Resource-Policy"] == "same-origin"
        assert said["Cache-Control"] == "no-store"
        assert "Access-Control-Allow-Origin" not in said
        assert "Python" not in said["Server"]


#: What is for everybody: to sign in, and to see that the daemon lives.
OPEN = re.compile(r"/healthz|/login|/logout|/static/.*|/favicon.*")


async def test_every_address_is_closed_to_nobody_and_every_change_to_forms_of_others(
    web_harness: Served,
) -> None:
    """Whatever is served, and anyone who adds to it: asked of the application itself."""
    made, client = web_harness
    cookie = await made.signed_in(client)
    tried = 0
    for route in made.app.router.routes():
        path = re.sub(r"\{[^}]*\}", "x", route.resource.canonical if route.resource else "")
        if OPEN.fullmatch(path):
            continue
        tried += 1
        assert (await call(client, path, route.method))[0] in (401, 403), (route.method, path)
        if route.method in ("POST", "PUT", "PATCH", "DELETE"):
            said = await call(client, path, route.method, headers={"Cookie": cookie})
            if said[0] == 415:  # a form with files, as a page of another site can send one
                with aiohttp.MultipartWriter("form-data") as form:
                    form.append("x").set_content_disposition("form-data", name="name")
                    form.append("x").set_content_disposition("form-data", name="files", filename="a")
                said = await call(client, path, route.method, headers={"Cookie": cookie}, data=form)
            assert said[0] == 403, (route.method, path, said)
            assert (await call(client, path, route.method, token=READER))[0] == 403, path
    assert tried > 30


def test_a_cookie_is_taken_as_it_was_given_and_in_no_other_text(tmp_path: Path) -> None:
    """Not with any character changed: base64's last one has bits that its readers do not look at."""
    sessions = Sessions(tmp_path)
    sessions.load()
    session, value = sessions.begin("mark", 60)
    assert sessions.read(value) == session
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=."
    others = {
        value[:place] + letter + value[place + 1 :] for place in range(len(value)) for letter in letters
    }
    others |= {value + letter for letter in letters} | {value[:-1]}
    assert [other for other in others - {value} if sessions.read(other) is not None] == []
