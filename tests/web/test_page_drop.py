"""Folders uploaded through the page: whole and unchanged, or not in the inbox at all; names that would lead out."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import os
import textwrap
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from dittohead.config.loader import load
from dittohead.config.settings import Drop
from dittohead.folders import names
from dittohead.model.errors import ItemError
from dittohead.web.pages import drop
from dittohead.web.server import listener
from dittohead.web.uploads import incoming
from dittohead.web.uploads import names as drop_names
from dittohead.web.uploads.receive import Incoming, Reception, checked_files, checked_path, listed
from tests.support.trees import read_tree
from tests.support.web_harness import OPERATOR, READER, WebHarness, call

Served = tuple[WebHarness, aiohttp.ClientSession]


@pytest.fixture
async def web_harness(tmp_path: Path) -> AsyncIterator[Served]:
    made = WebHarness(tmp_path / "root", drop={"most_bytes": 1 << 20, "most_files": 5})
    made.harness.config.settings.__dict__["http"] = made.settings
    async with made.serving() as client:
        yield made, client


def inbox(web_harness: WebHarness) -> list[str]:
    return sorted(os.listdir(web_harness.harness.root / "inbox"))


async def begun(client: aiohttp.ClientSession, name: str, files: dict[str, int], **more: Any) -> Any:
    body = {"name": name, "files": [{"path": p, "size": n} for p, n in files.items()], **more}
    status, said = await call(client, "/drop/uploads", "POST", token=OPERATOR, json=body)
    return said["id"] if status == 201 else (status, said)


async def put(
    client: aiohttp.ClientSession, id_: str, path: str, at: int, data: bytes, **headers: str
) -> Any:
    where = f"/drop/uploads/{id_}/file?path={quote(path, safe='')}&at={at}"
    return await call(client, where, "PUT", token=OPERATOR, data=data, headers=headers)


def digest(data: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


async def test_a_folder_comes_whole_and_is_renamed_last(web_harness: Served) -> None:
    """Dotted until everything is there; who dropped it is a request."""
    made, client = web_harness
    id_ = await begun(client, "n", {"a": 5, "d/ü": 3, "empty": 0})
    assert inbox(made) == [".n"]
    assert await put(client, id_, "a", 0, b"hello", **{"Content-Digest": digest(b"hello")}) == (
        200,
        {"at": 5},
    )
    status, said = await call(client, f"/drop/uploads/{id_}/finish", "POST", token=OPERATOR)
    assert status == 409
    assert "0 of 3 bytes" in said["detail"]
    await put(client, id_, "d/ü", 0, b"xyz")
    await put(client, id_, "empty", 0, b"")
    status, said = await call(client, f"/drop/uploads/{id_}/finish", "POST", token=OPERATOR)
    assert status == 200
    assert inbox(made) == ["n"]
    assert read_tree(made.harness.root / "inbox" / "n") == {
        b"a": b"hello",
        "d/ü".encode(): b"xyz",
        b"empty": b"",
    }
    status, said = await call(client, "/api/v1/requests", token=OPERATOR)
    assert [(one["action"], one["who"]) for one in said["items"]] == [("drop", "alice (token)")]


async def test_a_piece_that_differs_from_what_was_sent_is_not_kept(web_harness: Served) -> None:
    """What is there already stays; the piece can be sent again."""
    made, client = web_harness
    id_ = await begun(client, "n", {"a": 10})
    await put(client, id_, "a", 0, b"hello")
    status, _ = await put(client, id_, "a", 5, b"wORLD", **{"Content-Digest": digest(b"world")})
    assert status == 422
    assert read_tree(made.harness.root / "inbox" / ".n") == {b"a": b"hello"}
    assert (await put(client, id_, "a", 5, b"world", **{"Content-Digest": digest(b"world")}))[0] == 200


async def test_what_breaks_off_leaves_no_half_piece_and_survives_a_restart(tmp_path: Path) -> None:
    """The connection ends within a piece, then the daemon: what was whole is there, and is gone on with."""
    made = WebHarness(tmp_path / "root")
    async with made.serving() as client:
        id_ = await begun(client, "n", {"a": 4 << 20})
        await put(client, id_, "a", 0, bytes(1 << 20))

        async def torn() -> AsyncIterator[bytes]:
            yield bytes(2 << 20)
            raise ConnectionError

        with pytest.raises((ConnectionError, aiohttp.ClientError)):
            await put(client, id_, "a", 1 << 20, torn())
        path = made.harness.root / "inbox" / ".n" / "a"
        await made.harness.until(lambda: path.stat().st_size == 1 << 20)
    again = WebHarness(tmp_path / "root")
    async with again.serving() as client:
        _, said = await call(client, f"/drop/uploads/{id_}", token=OPERATOR)
        assert said["there"] == {"a": 1 << 20}
        assert (await put(client, id_, "a", 1 << 20, io.BytesIO(bytes(3 << 20))))[0] == 200
        assert (await call(client, f"/drop/uploads/{id_}/finish", "POST", token=OPERATOR))[0] == 200
        assert inbox(again) == ["n"]


async def test_a_folder_is_not_handed_over_while_a_file_of_it_is_written(web_harness: Served) -> None:
    """Another window may send a piece again: that must not truncated what was compared already."""
    made, client = web_harness
    id_ = await begun(client, "n", {"a": 2})
    await put(client, id_, "a", 0, b"hi")
    path, more = made.harness.root / "inbox" / ".n" / "a", asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield b"h"
        await more.wait()
        yield b"i"

    again = asyncio.ensure_future(put(client, id_, "a", 0, slowly()))
    await made.harness.until(lambda: path.stat().st_size < 2)
    for end in ("finish", "give-up"):
        status, said = await call(client, f"/drop/uploads/{id_}/{end}", "POST", token=OPERATOR)
        assert status == 409
        assert "still coming" in said["detail"]
    more.set()
    assert (await again)[0] == 200
    assert (await call(client, f"/drop/uploads/{id_}/finish", "POST", token=OPERATOR))[0] == 200
    assert read_tree(made.harness.root / "inbox" / "n") == {b"a": b"hi"}


async def test_what_was_not_announced_is_not_taken(web_harness: Served) -> None:
    """More bytes, other files, other places, pieces behind a gap; uploads that are none."""
    made, client = web_harness
    id_ = await begun(client, "n", {"a": 5})
    assert (await put(client, id_, "a", 0, b"hello!"))[0] == 413
    assert (await put(client, id_, "a", 3, b"lo"))[0] == 409
    for path in ("b", "../x", "/etc/x", "", "a/b"):
        assert (await put(client, id_, path, 0, b"x"))[0] == 422
    for at in ("-1", "x", "1e3", "²", "9" * 5000):
        where = f"/drop/uploads/{id_}/file?path=a&at={quote(at)}"
        assert (await call(client, where, "PUT", token=OPERATOR, data=b"x"))[0] == 422
    for other in ("0" * 32, "..%2f..%2fstate", "%00"):
        assert (await call(client, f"/drop/uploads/{other}/finish", "POST", token=OPERATOR))[0] == 404
    assert read_tree(made.harness.root / "inbox" / ".n") == {b"a": b""}


async def test_a_link_that_somebody_put_in_its_way_is_not_followed(
    web_harness: Served, tmp_path: Path
) -> None:
    """Neither in place of a directory nor of a file."""
    made, client = web_harness
    id_ = await begun(client, "n", {"d/a": 1, "b": 1})
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "b").write_text("kept")
    (made.harness.root / "inbox" / ".n" / "d").symlink_to(elsewhere)
    (made.harness.root / "inbox" / ".n" / "b").symlink_to(elsewhere / "b")
    for path in ("d/a", "b"):
        status, said = await put(client, id_, path, 0, b"x")
        assert status in (409, 507)
        assert "link" in said["detail"] or "symbolic" in said["detail"], said
    assert read_tree(elsewhere) == {b"b": b"kept"}


async def test_what_others_may_put_into_an_upload_leads_nowhere(tmp_path: Path) -> None:
    """A link in place of the side-car, or deep in a path; and a default ACL of the inbox gives nobody more."""
    inbox_of = tmp_path / "inbox"
    elsewhere = tmp_path / "elsewhere"
    inbox_of.mkdir()
    elsewhere.mkdir()
    (elsewhere / "store").write_text("kept")
    reception = Reception(inbox_of, tmp_path / "uploads")
    before = os.umask(0)  # as where a default ACL stands: then the umask has no say
    try:
        made = reception.begin(
            Incoming(id="0" * 32, name="n", who="a", ino=0, files={"d/e/a": 0, "f/g": 0}, purposes=["access"])
        )
        with reception.opened(made, "d/e/a", 0):
            pass
    finally:
        os.umask(before)
    assert [(inbox_of / ".n" / path).stat().st_mode & 0o022 for path in ("", "d", "d/e")] == [0, 0, 0]
    (inbox_of / ".n" / "f").symlink_to(elsewhere)
    with pytest.raises(ItemError, match="a link"), reception.opened(made, "f/h/i", 0):
        pass
    (inbox_of / ".n" / "f").unlink()
    with reception.opened(made, "f/g", 0):
        pass
    (inbox_of / ".n" / "dittohead.yaml").symlink_to(elsewhere / "store")
    reception.complete(made)
    reception.hand_over(made)
    assert read_tree(elsewhere) == {b"store": b"kept"}
    assert (inbox_of / "n" / "dittohead.yaml").read_text() == "purpose:\n- access\n"


async def test_a_piece_that_comes_too_late_makes_nothing(web_harness: Served) -> None:
    """Of an upload that was given up or handed over meanwhile; not either where another has its name now."""
    made, client = web_harness
    door = made.app[drop.DOOR].reception
    for end in (door.give_up, door.hand_over):
        id_ = await begun(client, "n", {"d/a": 0})
        incoming = door.get(id_)
        assert incoming is not None
        with door.opened(incoming, "d/a", 0):
            pass
        end(incoming)
        with pytest.raises(ItemError, match="not under way any more"), door.opened(incoming, "d/a", 0):
            pass
        with pytest.raises(ItemError, match="not under way any more"):
            door.complete(incoming)
        with pytest.raises(ItemError, match="not under way any more"):
            door.hand_over(incoming)
        assert ".n" not in inbox(made)
    (made.harness.root / "inbox" / "n").rename(made.harness.root / "inbox" / ".n")  # of the same inode even
    with pytest.raises(ItemError, match="not under way any more"), door.opened(incoming, "d/a", 0):
        pass


async def test_the_name_is_tried_before_a_byte_is_sent(web_harness: Served) -> None:
    """No pipeline, taken, dotted, too many files or bytes, no room: nothing is made."""
    made, client = web_harness
    for name, files, word in [
        ("!odd", {"a": 1}, "no pipeline's match"),
        (".n", {"a": 1}, "is not a name"),
        ("a/b", {"a": 1}, "is not a name"),
        ("n", {}, "no files"),
        ("n", {f"{n}": 1 for n in range(6)}, "more than 5 files"),
        ("n", {"a": (1 << 20) + 1}, "more than 1,048,576 bytes"),
        ("n", {"a": 1, "a/b": 1}, "a file and a folder at once"),
    ]:
        status, said = await begun(client, name, files)
        assert status == 409
        assert word in said["detail"], said
    status, said = await begun(client, "n", {"a": 1}, purposes=["access"])
    assert "has nothing for access" in said["detail"]
    assert inbox(made) == []
    await begun(client, "n", {"a": 1})
    assert "being uploaded" in (await begun(client, "n", {"a": 1}))[1]["detail"]
    said = (await call(client, "/drop/match?name=n", token=OPERATOR))[1]
    assert not said["ok"]
    said = (await call(client, "/drop/match?name=m", token=OPERATOR))[1]
    assert (said["pipeline"], said["steps"]) == ("three", ["first", "second", "third"])


async def test_without_room_nothing_is_begun(web_harness: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """What other uploads still want counts too."""
    made, client = web_harness
    free = os.statvfs(made.harness.root)
    floor = free.f_bavail * free.f_frsize + (1 << 40)
    monkeypatch.setattr(type(made.harness.config.settings.space), "floor", floor, raising=False)
    made.harness.config.settings.space.__dict__["floor"] = floor
    status, said = await begun(client, "n", {"a": 1})
    assert status == 507
    assert "iB more are needed" in said["detail"]
    assert inbox(made) == []


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"[]", b"{", b'{"name": 1}', b'{"name":"n","files":[{"path":1,"size":2}]}'),
        b'{"name":"n","purposes":["\\ud800"],"files":[{"path":"a","size":2}]}',
    ],
)
async def test_a_list_that_makes_no_sense_is_refused(web_harness: Served, body: bytes) -> None:
    """Cleanly, and nothing is made."""
    made, client = web_harness
    status, _ = await call(client, "/drop/uploads", "POST", token=OPERATOR, data=body)
    assert status in (400, 409, 422)
    assert inbox(made) == []


async def test_only_operators_and_only_our_own_forms(web_harness: Served) -> None:
    """Readers do not; a form of another site that a browser sends with the cookie does not."""
    made, client = web_harness
    body = json.dumps({"name": "n", "files": [{"path": "a", "size": 1}]})
    assert (await call(client, "/drop/uploads", "POST", token=READER, data=body))[0] == 403
    assert (await call(client, "/drop", token=READER))[0] == 403
    cookie = await made.signed_in(client)
    headers = {"Cookie": cookie}
    assert (await call(client, "/drop/uploads", "POST", headers=headers, data=body))[0] == 403
    with aiohttp.MultipartWriter("form-data") as form:
        part = form.append(b"x")
        part.set_content_disposition("form-data", name="files", filename="a.txt")
    assert (await call(client, "/drop", "POST", headers=headers, data=form))[0] == 403
    assert inbox(made) == []
    headers["X-CSRF-Token"] = await made.csrf(client, cookie)
    assert (await call(client, "/drop/uploads", "POST", headers=headers, data=body))[0] == 201


def form_of(fields: dict[str, str], files: list[tuple[str, str, bytes]]) -> aiohttp.MultipartWriter:
    form = aiohttp.MultipartWriter("form-data")
    for name, value in fields.items():
        form.append(value).set_content_disposition("form-data", name=name)
    for name, path, data in files:
        form.append(data).set_content_disposition("form-data", name=name, filename=path, quote_fields=False)
    return form


async def test_a_plain_form_brings_a_folder_or_nothing(web_harness: Served) -> None:
    """With the folder's own name left out of its files' paths."""
    made, client = web_harness
    form = form_of({"name": "n"}, [("tree", "set/a", b"1"), ("tree", "set/d/b", b"22"), ("files", "", b"")])
    status, _ = await call(client, "/drop", "POST", token=OPERATOR, data=form)
    assert status == 303
    assert read_tree(made.harness.root / "inbox" / "n") == {b"a": b"1", b"d/b": b"22"}
    for files in (
        [("files", "a", b"1"), ("files", "../b", b"1")],
        [("files", "a", b"1"), ("files", "a", b"2")],
        [("files", "a", b"1"), ("files", "b%22c", b"2")],
        [("files", "a", b"1"), ("files", "c:\\b", b"2")],
        [("files", "a", bytes(1 << 20)), ("files", "b", b"2")],
        [("files", str(n), b"1") for n in range(6)],
        [("files", "", b"")],
        [],
    ):
        form = form_of({"name": "m"}, files)
        status, said = await call(client, "/drop", "POST", token=OPERATOR, data=form)
        assert status >= 400, files
        assert "Nothing was kept" in said
        assert inbox(made) == ["n"]
    assert os.listdir(made.harness.root / "state" / "uploads") == []


async def test_a_form_on_its_way_is_ended_by_nobody(web_harness: Served) -> None:
    """Neither handed over half nor taken away; one that a killed daemon left can only be given up."""
    made, client = web_harness
    # aiohttp reads ahead before it gives out a part.
    more, first = asyncio.Event(), "h" * 500_000

    async def body() -> AsyncIterator[bytes]:
        for name, data in (("name", "n"), ('files"; filename="a', first), ('files"; filename="b', "llo")):
            head = f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
            yield (head + data + "\r\n").encode()
            if data == first:
                await more.wait()
        yield b"--x--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    sending = asyncio.ensure_future(
        call(client, "/drop", "POST", token=OPERATOR, data=body(), headers=headers)
    )
    records = made.harness.root / "state" / "uploads"
    await made.harness.until(lambda: records.is_dir() and any(records.glob("*.json")))
    (record,) = records.glob("*.json")
    kept = record.read_bytes()
    for end in ("finish", "give-up"):
        assert (await call(client, f"/drop/uploads/{record.stem}/{end}", "POST", token=OPERATOR))[0] == 409
    more.set()
    assert (await sending)[0] == 303
    assert read_tree(made.harness.root / "inbox" / "n") == {b"a": first.encode(), b"b": b"llo"}
    (made.harness.root / "inbox" / "n").rename(made.harness.root / "inbox" / ".n")
    record.write_bytes(kept)
    made.app[drop.DOOR].over.clear()  # as another daemon would find it
    status, said = await call(client, f"/drop/uploads/{record.stem}/finish", "POST", token=OPERATOR)
    assert (status, said["hint"].partition(",")[0]) == (409, "Give it up")
    assert (await call(client, f"/drop/uploads/{record.stem}/give-up", "POST", token=OPERATOR))[0] == 303
    assert inbox(made) == []


async def test_a_plain_form_that_a_crash_broke_off_is_never_handed_over(web_harness: Served) -> None:
    """What it was to hold is known to nobody: it can only be given up."""
    made, client = web_harness
    reception = made.app[drop.DOOR].reception
    begun = reception.begin(Incoming(id="0" * 32, name="n", who="a", ino=0, files={}, purposes=[]))
    with reception.opened(begun, "a", 0) as fd:
        os.write(fd, b"half of it")
    status, said = await call(client, f"/drop/uploads/{begun.id}/finish", "POST", token=OPERATOR)
    assert (status, "broke off" in said["detail"]) == (409, True)
    assert inbox(made) == [".n"]
    status, _ = await call(client, f"/drop/uploads/{begun.id}/give-up", "POST", token=OPERATOR)
    assert (status, inbox(made)) == (303, [])


async def test_what_a_plain_form_has_brought_makes_no_room(web_harness: Served) -> None:
    """Its size is not known before; what others still want counts, and what is there does not count against it."""
    made, _ = web_harness
    reception = made.app[drop.DOOR].reception
    lacking = reception.lacking(reception.all(), 0, 0)
    plain = reception.begin(Incoming(id="0" * 32, name="n", who="a", ino=0, files={}, purposes=[]))
    with reception.opened(plain, "a", 0) as fd:
        os.truncate(fd, 1 << 43)  # takes no room
    assert abs(reception.lacking(reception.all(), 0, 0) - lacking) < 1 << 40
    reception.begin(Incoming(id="1" * 32, name="m", who="a", ino=0, files={"a": 1 << 50}, purposes=[]))
    assert reception.lacking(reception.all(), 0, 0) - lacking > 1 << 49


async def test_whoever_sends_nothing_more_is_told_so(
    web_harness: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not that the disk is full, which nobody tries again."""
    made, client = web_harness
    monkeypatch.setattr(incoming, "_PATIENCE_S", 0.05)
    id_ = await begun(client, "n", {"a": 10})
    reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
    head = f"PUT /drop/uploads/{id_}/file?path=a&at=0 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n"
    writer.write(f"{head}Authorization: Bearer {OPERATOR}\r\n\r\n12345".encode())
    async with asyncio.timeout(20):
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 408")
    writer.close()
    assert read_tree(made.harness.root / "inbox" / ".n") == {b"a": b""}


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b""),
        ("multipart/form-data; boundary=x", b""),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\n"),
    ],
)
async def test_a_form_that_is_none_is_refused(web_harness: Served, kind: str, body: bytes) -> None:
    """And is not a defect of ours."""
    made, client = web_harness
    headers = {"Content-Type": kind}
    status, _ = await call(client, "/drop", "POST", token=OPERATOR, data=body, headers=headers)
    assert 400 <= status < 500
    assert inbox(made) == []


async def test_a_form_has_no_more_fields_than_it_needs(web_harness: Served) -> None:
    """Each would be kept until its end."""
    field = b'--x\r\nContent-Disposition: form-data; name="purposes"\r\n\r\na\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    for count, wanted in ((3, 422), (101, 413)):
        data = field * count + b"--x--\r\n"
        status, _ = await call(web_harness[1], "/drop", "POST", token=OPERATOR, data=data, headers=headers)
        assert status == wanted


async def test_whoever_goes_away_while_it_is_handed_over_is_recorded(
    web_harness: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And anyone who comes back and asks again is led to the job, not told that there is no such upload."""
    made, client = web_harness
    id_ = await begun(client, "n", {"a": 0})
    await put(client, id_, "a", 0, b"")
    began, go, completed = threading.Event(), threading.Event(), Reception.complete

    def slowly(self: Reception, incoming: Incoming) -> None:
        began.set()
        go.wait(20)
        completed(self, incoming)

    monkeypatch.setattr(Reception, "complete", slowly)
    door, lines = made.app[drop.DOOR], made.app[listener.LINES]
    _, writer = await asyncio.open_connection("127.0.0.1", made.port)
    head = f"POST /drop/uploads/{id_}/finish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n"
    writer.write(f"{head}Authorization: Bearer {OPERATOR}\r\n\r\n".encode())
    await made.harness.until(began.is_set)
    writer.close()
    await made.harness.until(lambda: not lines._busy)  # its handler was cancelled
    go.set()
    await made.harness.until(lambda: not door.handing)
    status, said = await call(client, "/api/v1/requests", token=OPERATOR)
    assert [(one["action"], one["who"]) for one in said["items"]] == [("drop", "alice (token)")]
    status, said = await call(client, f"/drop/uploads/{id_}/finish", "POST", token=OPERATOR)
    assert (status, said["go"].startswith("/drop/done?name=n&ino=")) == (200, True)


async def test_a_side_car_of_the_folders_own_is_not_written_over(
    web_harness: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it comes in pieces or by a plain form: the folder is refused."""
    made, client = web_harness
    monkeypatch.setattr(drop, "fitting", lambda *given: None)
    status, said = await begun(client, "n", {"dittohead.yaml": 2}, purposes=["access"])
    assert (status, "says already" in said["detail"]) == (409, True)
    files = [("files", "a", b"1"), ("files", "dittohead.yaml", b"{}")]
    form = form_of({"name": "n", "purposes": "access"}, files)
    status, said = await call(client, "/drop", "POST", token=OPERATOR, data=form)
    assert (status, "says already" in said) == (422, True)
    assert inbox(made) == []


async def test_an_upload_is_given_up(web_harness: Served) -> None:
    """And another's folder of that name, put there since, is left alone."""
    made, client = web_harness
    id_ = await begun(client, "n", {"a": 1})
    status, _ = await call(client, f"/drop/uploads/{id_}/give-up", "POST", token=OPERATOR)
    assert status == 303
    assert inbox(made) == []
    id_ = await begun(client, "n", {"a": 1})
    (made.harness.root / "inbox" / ".n").rename(made.harness.root / "inbox" / ".mine")
    (made.harness.root / "inbox" / ".n").mkdir()
    assert (await call(client, f"/drop/uploads/{id_}/give-up", "POST", token=OPERATOR))[0] == 404
    assert inbox(made) == [".mine", ".n"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to give a folder to somebody else")
async def test_a_folder_of_somebody_else_is_not_taken_for_the_upload(web_harness: Served) -> None:
    """Also where the file system has given it the inode that the upload had."""
    made, client = web_harness
    id_ = await begun(client, "n", {"a": 1})
    os.chown(made.harness.root / "inbox" / ".n", 60001, 60001)
    for end in ("give-up", "finish"):
        assert (await call(client, f"/drop/uploads/{id_}/{end}", "POST", token=OPERATOR))[0] == 404
    assert inbox(made) == [".n"]


async def test_what_did_not_come_by_the_upload_does_not_go_along(web_harness: Served) -> None:
    """Somebody has put it there; it is named, and nothing is handed over."""
    made, client = web_harness
    id_ = await begun(client, "n", {"a": 1})
    await put(client, id_, "a", 0, b"x")
    (made.harness.root / "inbox" / ".n" / "b").write_text("planted")
    status, said = await call(client, f"/drop/uploads/{id_}/finish", "POST", token=OPERATOR)
    assert (status, said["detail"]) == (409, "b: 1 file in this folder did not come by this upload")
    assert inbox(made) == [".n"]
    (made.harness.root / "inbox" / ".n" / "b").unlink()
    assert (await call(client, f"/drop/uploads/{id_}/finish", "POST", token=OPERATOR))[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "a/../b",
        "a/./b",
        "a\0b",
        "a\\b",
        "x" * 256,
        "é" * 128,
        "a/" * 300 + "b",
        "\udcff",
    ],
)
def test_paths_that_lead_out_or_cannot_be_are_refused(path: str) -> None:
    """By the rules of the claim, before anything is opened."""
    with pytest.raises(ItemError):
        checked_path(path)


@pytest.mark.parametrize(
    "path", ["a", ".hidden", "a b", "...", "ü/é", "x" * 255, "a:b", "-rf", "a\nb", "<b>"]
)
def test_paths_that_a_claim_takes_are_taken(path: str) -> None:
    """However odd they look."""
    assert checked_path(path) == path


@pytest.mark.parametrize("name", ["", ".n", "a/b", "a\\b", "..", "x" * 255, "a\0", "a\nb", "a\x7f", "\udcff"])
def test_names_that_cannot_come_into_the_inbox_are_refused(name: str) -> None:
    """A dot goes in front of them while they are uploaded."""
    with pytest.raises(ItemError):
        names.checked(name)
    assert names.checked("x" * 254)


def test_bytes_are_counted_before_they_come() -> None:
    """Negative sizes do not make room, and no number that is none."""
    with pytest.raises(ItemError):
        checked_files([("a", 10), ("b", -5)], Drop(most_bytes=8))
    for size in (True, 1.5, "1", None):
        with pytest.raises(ItemError):
            listed([{"path": "a", "size": size}])


def test_a_piece_is_half_of_what_may_come() -> None:
    """So that a script that counts otherwise is not refused at once."""
    assert drop.PIECE >= 2 * (8 << 20)


async def said_of(client: aiohttp.ClientSession, name: str) -> dict[str, Any]:
    status, said = await call(client, f"/drop/match?name={quote(name)}", token=OPERATOR)
    assert status == 200
    found: dict[str, Any] = said
    return found


async def test_a_name_that_was_done_before_is_told_with_one_that_is_free(web_harness: Served) -> None:
    """Also without scripts; what is in the inbox, or was a job's, is not free."""
    made, client = web_harness
    assert (await said_of(client, "n"))["known"] is None
    for name in ("n", "n-2"):
        made.harness.arrive(name)
    async with made.harness.running():
        job = await made.harness.until_over("n")
        await made.harness.until_over("n-2")
    (made.harness.root / "inbox" / ".n-3").mkdir()
    said = await said_of(client, "n")
    assert (said["ok"], said["known"]["job"], said["free"]) == (True, job.id, "n-4")
    assert said["known"]["said"] == "A folder of this name was done before"
    (made.harness.root / "inbox" / "n").mkdir()
    said = await said_of(client, "n")
    assert (said["ok"], said["free"]) == (False, "n-4")
    status, page = await call(client, "/drop?name=n", token=OPERATOR)
    assert status == 200
    assert "This name is free: <code>n-4</code>" in page
    assert f'<a href="/jobs/{job.id}">A folder of this name was done before</a>' in page
    for odd in ("", "\0", "a/b", "x" * 5000):
        assert (await said_of(client, odd))["free"] == ""


def test_a_free_name_means_the_same(tmp_path: Path) -> None:
    """A number within a named group could be another object's; one that goes elsewhere is none."""
    text = """
    root: .
    pipelines:
      objects: {match: "(?P<object>[A-Z]+(_[0-9]+)+)", steps: [{checksum: {}}]}
      studies: {match: "(?P<study>[a-z]+)-.*", steps: [{checksum: {}}]}
      rest: {match: ".*", steps: [{checksum: {}}]}
    """
    (tmp_path / "config.yaml").write_text(textwrap.dedent(text))
    config = load(tmp_path / "config.yaml")
    assert drop_names.like(config, "HBF_1_7") == []
    assert drop_names.like(config, "lab-x")[:2] == ["lab-x-2", "lab-x-3"]
    assert "lab-2" not in drop_names.like(config, "lab")
