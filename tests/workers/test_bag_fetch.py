"""Bags with a fetch.txt: completed from hosts that are allowed, by a server that breaks off, sends on, or lies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bagit
import pytest
from aiohttp import web
from pydantic import ValidationError

from dittohead.model.errors import ItemError, TransientError
from dittohead.workers.bag import completing
from dittohead.workers.bag.completing import HostNotAllowed, must_be_allowed
from dittohead.workers.bag.options import BagOptions
from dittohead.workers.bag.worker import BagWorker
from tests.support.context import LoneContext
from tests.support.trees import read_tree, tree

BIG = bytes(range(256)) * 4096  # a MiB


@dataclass
class Server:
    """What it gives out, and what it was asked."""

    base: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    base_dir: Path = Path()  #: of the test
    breaks: int = 0  #: answers that end half-way
    sends: int = 1  #: halves that it sends before it breaks off
    ranges: bool = True
    etag: str = '"1"'
    status: int = 0
    asked: list[tuple[str, str]] = field(default_factory=list)  #: path, Range

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.path, request.headers.get("Range", "")))
        if request.path in self.moved:
            raise web.HTTPFound(self.moved[request.path])
        if self.status:
            return web.Response(status=self.status, headers={"Retry-After": "7"})
        if request.path not in self.files:
            raise web.HTTPNotFound
        data, begin = self.files[request.path], 0
        if self.ranges and request.headers.get("If-Range") == self.etag and "Range" in request.headers:
            begin = int(request.headers["Range"].removeprefix("bytes=").rstrip("-"))
        left = data[begin:]
        said = web.StreamResponse(status=206 if begin else 200, headers={"ETag": self.etag})
        if begin:
            said.headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        said.content_length = len(left)
        await said.prepare(request)
        if self.breaks:
            self.breaks -= 1
            await said.write(left[: len(left) * self.sends // 2])
            while self.sends and not _parts(self.base_dir):  # what was sent is lost where nobody has read it
                await asyncio.sleep(0.005)
            assert request.transport is not None
            request.transport.abort()
            return said
        await said.write(left)
        return said


def _parts(base: Path) -> int:
    """Return how many bytes of unfinished files lie there."""
    return sum(path.stat().st_size for path in base.rglob("*.part"))


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    made = Server(base_dir=tmp_path)
    app = web.Application()

    async def answer(request: web.Request) -> web.StreamResponse:
        return await made.answer(request)  # as it is then: a test may put another in its place

    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    made.base = f"http://127.0.0.1:{port}"
    yield made
    await runner.cleanup()


def holey(base: Path, server: Server, size: str = "") -> Path:
    """Make a bag by the usual library, then take its large file away and say where it lies."""
    root = tree(base / "vol", {"a.txt": b"text", "sub": {"big.bin": BIG}})
    bagit.make_bag(str(root), checksums=["sha256", "md5"], processes=1)
    (root / "data/sub/big.bin").unlink()
    (root / "fetch.txt").write_text(f"{server.base}/big%20one {size or len(BIG)} data/sub/big.bin\n")
    for name in root.glob("tagmanifest-*"):
        name.unlink()
    server.files["/big one"] = BIG
    return root


async def run(base: Path, root: Path, hosts: tuple[str, ...] = ("127.0.0.1",)) -> LoneContext:
    ctx = LoneContext(base, root)
    await BagWorker().run(ctx, BagOptions.model_validate({"check": True, "fetch": list(hosts)}))
    return ctx


async def test_the_completed_bag_is_made_and_the_dropped_one_stays(tmp_path: Path, server: Server) -> None:
    root = holey(tmp_path, server)
    before = read_tree(root)
    ctx = await run(tmp_path, root)
    assert read_tree(root) == before
    assert set(read_tree(ctx.work)) == {output.path for output in ctx.outputs}
    assert read_tree(ctx.work)[b"data/sub/big.bin"] == BIG
    assert {output.path: output.source for output in ctx.outputs}[b"data/a.txt"] == b"data/a.txt"
    assert bagit.Bag(str(ctx.work)).is_valid()
    assert "complete and valid" in ctx.events[0].detail
    assert server.asked == [("/big one", "")]


async def test_without_hosts_nothing_is_asked_for(tmp_path: Path, server: Server) -> None:
    root = holey(tmp_path, server)
    with pytest.raises(ItemError, match="complete the bag"):
        await run(tmp_path, root, ())
    assert server.asked == []


async def test_a_host_that_is_not_allowed_is_not_asked_and_all_are_named(
    tmp_path: Path, server: Server
) -> None:
    root = holey(tmp_path, server)
    with open(root / "fetch.txt", "a") as out:
        out.write("file:///etc/passwd 1 data/b\nhttp://u:p@127.0.0.1/c 1 data/c\nhttps://[/d 1 data/d\n")
    with pytest.raises(ItemError) as caught:
        await run(tmp_path, root, ("files.example.org",))
    said = str(caught.value)
    for words in (
        "the host 127.0.0.1 is not among fetch: files.example.org",
        "only http and https",
        "a user's name",
        "not an address",
    ):
        assert words in said
    assert server.asked == []


async def test_an_answer_that_breaks_off_is_gone_on_with(tmp_path: Path, server: Server) -> None:
    server.breaks = 2
    ctx = await run(tmp_path, holey(tmp_path, server))
    assert read_tree(ctx.work)[b"data/sub/big.bin"] == BIG
    assert next(place for _, place in server.asked) == ""
    assert all(place.startswith("bytes=") for _, place in server.asked[1:]), server.asked


@pytest.mark.parametrize("how", ["no ranges", "another file", "weak"])
async def test_it_begins_again_where_the_rest_would_be_of_another_file(
    tmp_path: Path, server: Server, how: str
) -> None:
    server.breaks = 1
    server.ranges = how != "no ranges"
    if how == "weak":
        server.etag = 'W/"1"'
    elif how == "another file":
        asked = server.answer

        async def changes(request: web.Request) -> web.StreamResponse:
            server.etag = f'"{len(server.asked)}"'
            return await asked(request)

        server.answer = changes  # type: ignore[method-assign]
    ctx = await run(tmp_path, holey(tmp_path, server))
    assert read_tree(ctx.work)[b"data/sub/big.bin"] == BIG


async def test_one_that_breaks_off_at_once_each_time_is_tried_later(tmp_path: Path, server: Server) -> None:
    root = holey(tmp_path, server)
    server.breaks, server.sends = 99, 0
    with pytest.raises(TransientError, match=r"127\.0\.0\.1 does not send data/sub/big\.bin"):
        await run(tmp_path, root)
    assert len(server.asked) == completing._TRIES


async def test_it_follows_to_allowed_hosts_alone(tmp_path: Path, server: Server) -> None:
    root = holey(tmp_path, server)
    server.moved["/big one"] = "/other"
    server.files["/other"] = BIG
    ctx = await run(tmp_path, root)
    assert read_tree(ctx.work)[b"data/sub/big.bin"] == BIG
    port = server.base.rpartition(":")[2]
    server.moved["/big one"] = f"http://localhost:{port}/other"
    with pytest.raises(ItemError, match="the host localhost is not among fetch"):
        await run(tmp_path / "again", root)
    server.moved["/big one"] = "/big%20one"
    with pytest.raises(ItemError, match="more than 5 times"):
        await run(tmp_path / "circle", root)


@pytest.mark.parametrize(
    ("content", "size", "said"),
    [
        (BIG + b"x", "", "sends more than the 1,048,576 bytes"),
        (BIG[:-1], "", "sends 1,048,575 bytes; fetch.txt says 1,048,576"),
        (BIG[:-1] + b"x", "", "its sha256 is not what manifest-sha256.txt says"),
        (BIG + b"x", "-", "its sha256 is not what manifest-sha256.txt says"),
    ],
)
async def test_another_content_is_refused_and_fetched_anew_by_a_retry(
    tmp_path: Path, server: Server, content: bytes, size: str, said: str
) -> None:
    root = holey(tmp_path, server, size)
    server.files["/big one"] = content
    ctx = LoneContext(tmp_path, root)
    options = BagOptions.model_validate({"check": True, "fetch": ["127.0.0.1"]})
    with pytest.raises(ItemError, match=said):
        await BagWorker().run(ctx, options)
    server.files["/big one"] = BIG
    server.etag = '"2"'
    await BagWorker().run(ctx, options)
    assert read_tree(ctx.work)[b"data/sub/big.bin"] == BIG


async def test_what_is_not_there_is_named_and_a_busy_server_is_asked_later(
    tmp_path: Path, server: Server
) -> None:
    root = holey(tmp_path, server)
    del server.files["/big one"]
    with pytest.raises(ItemError, match=r"data/sub/big\.bin: 127\.0\.0\.1 answers 404"):
        await run(tmp_path, root)
    server.status = 503
    with pytest.raises(TransientError) as caught:
        await run(tmp_path, root)
    assert caught.value.retry_after_s == 7


async def test_paths_that_would_lie_elsewhere_or_nowhere_are_refused(tmp_path: Path, server: Server) -> None:
    root = holey(tmp_path, server)
    with open(root / "fetch.txt", "a") as out:
        out.write(f"{server.base}/x 1 ../../up\n{server.base}/x 1 data/a.txt/below\n")
        out.write(f"{server.base}/x 1 data/{'n' * 300}\n")
    server.files["/x"] = b"x"
    with pytest.raises(ItemError) as caught:
        await run(tmp_path, root)
    assert not (tmp_path / "up").exists()
    assert "has no place in the bag" in str(caught.value)


async def test_a_stop_leaves_what_was_fetched_for_the_next_try(tmp_path: Path, server: Server) -> None:
    root = holey(tmp_path, server)
    asked, waits, over = server.answer, asyncio.Event(), asyncio.Event()

    async def stalls(request: web.Request) -> web.StreamResponse:
        if server.asked:
            return await asked(request)
        server.asked.append((request.path, ""))
        said = web.StreamResponse(headers={"ETag": server.etag})
        said.content_length = len(BIG)
        await said.prepare(request)
        await said.write(BIG[:500_000])
        waits.set()
        await over.wait()
        return said

    server.answer = stalls  # type: ignore[method-assign]
    ctx = LoneContext(tmp_path, root)
    options = BagOptions.model_validate({"check": True, "fetch": ["127.0.0.1"]})
    task = asyncio.create_task(BagWorker().run(ctx, options))
    await waits.wait()
    while not _parts(ctx.work):
        await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    over.set()
    await BagWorker().run(ctx, options)
    assert server.asked[1][1].startswith("bytes=")
    assert set(read_tree(ctx.work)) == {output.path for output in ctx.outputs}


@pytest.mark.parametrize(
    ("url", "hosts", "good"),
    [
        ("https://files.example.org/a", ["files.example.org"], True),
        ("https://FILES.example.org./a", ["files.example.org"], True),
        ("https://a.b.example.org:8443/a", ["*.example.org"], True),
        ("https://example.org/a", ["*.example.org"], False),
        ("https://badexample.org/a", ["*.example.org"], False),
        ("https://files.example.org.evil.net/a", ["files.example.org"], False),
        ("https://evil.net/files.example.org", ["files.example.org"], False),
        ("https://files.example.org@evil.net/", ["files.example.org"], False),
        ("ftp://files.example.org/a", ["files.example.org"], False),
        ("//files.example.org/a", ["files.example.org"], False),
        ("https://files.example.org:x/", ["files.example.org"], False),
    ],
)
def test_hosts(url: str, hosts: list[str], good: bool) -> None:
    if good:
        must_be_allowed(url, hosts)
        return
    with pytest.raises(HostNotAllowed):
        must_be_allowed(url, hosts)


@pytest.mark.parametrize(
    "given",
    [{"fetch": ["a.org"]}, {"check": True, "fetch": ["*"]}, {"check": True, "fetch": ["http://a.org"]}],
)
def test_options_that_make_no_sense_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        BagOptions.model_validate(given)
