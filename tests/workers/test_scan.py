"""scan: clean, found, not scanned; and a clamd that is away, breaks off, or is something else."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dittohead.contract.worker import Done, Inputs
from dittohead.model.errors import ItemError, TargetError
from dittohead.model.states import JobState
from dittohead.workers.scan.worker import ScanOptions, ScanWorker
from tests.support.clamd import EICAR, FakeClamd, fake_clamd, real_clamd
from tests.support.context import LoneContext, source_of
from tests.support.harness import Harness
from tests.support.trees import tree

FILES: dict[str | bytes, Any] = {"a.tif": b"image", "sub": {"b c.tif": b"two", b"\xff.txt": b""}}


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory whose path is short enough for a socket."""
    path = Path(tempfile.mkdtemp(dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(params=["unix", "tcp"])
def clamd(short: Path, request: pytest.FixtureRequest) -> Iterator[FakeClamd]:
    with fake_clamd(short, tcp=request.param == "tcp") as fake:
        yield fake
    assert fake.faults == []


def options(address: str, **more: Any) -> ScanOptions:
    return ScanOptions.model_validate({"clamd": address, "definitions_age": "36500d", **more})


async def scanned(base: Path, folder: Path, address: str, *, spare: int = 0, **more: Any) -> LoneContext:
    ctx = LoneContext(base, folder, spare=spare)
    await run(ctx, address, **more)
    return ctx


async def run(ctx: LoneContext, address: str, **more: Any) -> None:
    assert isinstance(await ScanWorker().run(ctx, options(address, **more)), Done)


async def test_clean(tmp_path: Path, clamd: FakeClamd) -> None:
    """Every file is sent whole, and the receipt says by what engine and definitions."""
    big = os.urandom(700_000)
    ctx = await scanned(tmp_path, tree(tmp_path / "vol", {**FILES, "big": big}), clamd.address)
    assert sorted(clamd.streams) == sorted([b"image", b"two", b"", big])
    (event,) = ctx.events
    assert (event.type, event.outcome, event.agent) == ("virus check", "success", "ClamAV 1.4.6")
    assert event.detail == "4 files clean; definitions 27700 of 2026-01-05"
    assert ctx.progressed[-1][:2] == (700_008, 700_008)


async def test_every_finding_is_named(tmp_path: Path, clamd: FakeClamd) -> None:
    """A find stops the folder after all files; the log names all, the error the first few."""
    many = {f"{number:02}.com": EICAR + b"%d" % number for number in range(12)}
    folder = tree(tmp_path / "vol", {**FILES, **many})
    ctx = LoneContext(tmp_path, folder)
    with pytest.raises(ItemError) as caught:
        await run(ctx, clamd.address)
    assert len(clamd.streams) == 15
    assert "clamd found something in 12 files: 00.com, 01.com" in caught.value.what
    assert "and 7 more: Eicar" in caught.value.what
    assert "00.com" in caught.value.files
    log = ctx.log_file().read_text()
    assert all(f"{name}: found: Eicar" in log for name in many)
    assert [event.outcome for event in ctx.events] == ["failure"]


NOT_SCANNED = {
    "stream: Heuristics.Limits.Exceeded.MaxFileSize FOUND": "Heuristics.Limits.Exceeded.MaxFileSize",
    "stream: Heuristics.Encrypted.Zip FOUND": "Heuristics.Encrypted.Zip",
    "stream: Can't allocate memory ERROR": "Can't allocate memory ERROR",
}


@pytest.mark.parametrize(("reply", "said"), NOT_SCANNED.items())
async def test_not_scanned(tmp_path: Path, clamd: FakeClamd, reply: str, said: str) -> None:
    """What clamd did not look into is not clean: the folder fails, or goes on with a warning."""
    clamd.replies[b"two"] = reply.encode() + b"\0"
    folder = tree(tmp_path / "vol", FILES)
    with pytest.raises(ItemError, match=r"1 file not scanned: sub/b c\.tif") as caught:
        await scanned(tmp_path, folder, clamd.address)
    assert said in str(caught.value)
    ctx = await scanned(tmp_path, folder, clamd.address, not_scanned="note")
    assert ctx.events[0].outcome == "warning"
    assert said in ctx.events[0].detail


@pytest.mark.parametrize("size", [(1 << 20) + 1, 20 << 20])
async def test_too_large(tmp_path: Path, clamd: FakeClamd, size: int) -> None:
    """Above StreamMaxLength clamd cuts the connection: not scanned, and yet compared with the manifest."""
    folder = tree(tmp_path / "vol", {**FILES, "big": bytes(size)})
    with pytest.raises(ItemError, match="big: it is larger than clamd takes"):
        await scanned(tmp_path, folder, clamd.address)
    ctx = LoneContext(tmp_path, folder)
    (folder / "big").write_bytes(bytes(size - 1) + b"x")
    with pytest.raises(ItemError, match="big: it is not what it was before"):
        await run(ctx, clamd.address, not_scanned="note")


async def test_changed_and_gone(tmp_path: Path, clamd: FakeClamd) -> None:
    """A file that is not what it was is said, beside what was found."""
    folder = tree(tmp_path / "vol", {**FILES, "x.com": EICAR, "link": b"file"})
    ctx = LoneContext(tmp_path, folder)
    (folder / "a.tif").write_bytes(b"imagf")
    (folder / "sub" / "b c.tif").unlink()
    (folder / "link").unlink()
    (folder / "link").symlink_to("/etc/passwd")
    with pytest.raises(ItemError) as caught:
        await run(ctx, clamd.address)
    for said in (
        "x.com: Eicar",
        "a.tif: it is not what it was",
        "b c.tif: it is gone",
        "link: this is not a",
    ):
        assert said in str(caught.value)
    assert not any(b"root:" in content for content in clamd.streams)


@pytest.mark.parametrize(
    "reply",
    [
        b"BUSY\0", b"\0", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"stream: O", b"", b"OK\0", b"stream: FOUND\0",
        b"x" * 200_000, b"\xff\xfe\0", b"stream: OK FOUNDED\0",
    ],
)  # fmt: skip
async def test_no_answer(tmp_path: Path, clamd: FakeClamd, reply: bytes) -> None:
    """What is not an answer is never "clean": the target is at fault, and waits."""
    clamd.replies[b"image"] = reply
    with pytest.raises(TargetError, match="clamd at"):
        await scanned(tmp_path, tree(tmp_path / "vol", FILES), clamd.address)


async def test_clean_before_the_end(tmp_path: Path, clamd: FakeClamd) -> None:
    """An OK that comes before all of a file was sent says nothing of it."""
    clamd.limit = 64 << 20
    clamd.early[b"xxxx"] = b"stream: OK\0"
    with pytest.raises(TargetError, match="is not an answer of clamd"):
        await scanned(tmp_path, tree(tmp_path / "vol", {"big": b"x" * (30 << 20)}), clamd.address)


@pytest.mark.parametrize(
    ("what", "answer"), [("version", b"SSH-2.0-x\0"), ("version", b"BUSY\0"), ("version", b"")]
)
async def test_something_else(tmp_path: Path, clamd: FakeClamd, what: str, answer: bytes) -> None:
    """Before any file is sent, the other side is seen to be clamd."""
    setattr(clamd, what, answer)
    with pytest.raises(TargetError):
        await scanned(tmp_path, tree(tmp_path / "vol", FILES), clamd.address)
    assert clamd.streams == []


async def test_silent(tmp_path: Path, clamd: FakeClamd) -> None:
    """A clamd that says nothing is waited for as long as `timeout` says."""
    over = threading.Event()
    clamd.hold = lambda content: over.wait() and None if content == b"image" else None
    try:
        with pytest.raises(TargetError, match="there was neither an answer nor a read for"):
            await scanned(tmp_path, tree(tmp_path / "vol", FILES), clamd.address, timeout=0.2)
    finally:
        over.set()


async def test_stop(tmp_path: Path, clamd: FakeClamd) -> None:
    """A step that is stopped leaves, though clamd says nothing."""
    begun, over = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def hold(content: bytes) -> None:
        if content == b"image":
            loop.call_soon_threadsafe(begun.set)
            over.wait()

    clamd.hold = hold
    task = asyncio.create_task(scanned(tmp_path, tree(tmp_path / "vol", FILES), clamd.address))
    try:
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    finally:
        over.set()


async def test_away(tmp_path: Path, short: Path) -> None:
    """Where nothing listens the target is at fault."""
    folder = tree(tmp_path / "vol", FILES)
    for address in (f"unix:{short}/none", "tcp://127.0.0.1:1"):
        with pytest.raises(TargetError, match="it cannot be reached"):
            await scanned(tmp_path, folder, address)


async def test_a_file_that_breaks_clamd(tmp_path: Path, clamd: FakeClamd) -> None:
    """It is found out by being sent alone, and then counts as not scanned; the others are scanned."""
    folder = tree(tmp_path / "vol", {f"{n}": b"%d" % n for n in range(200)})
    clamd.breaks = {b"100"}
    ctx = LoneContext(tmp_path, folder, spare=3)
    for _ in range(3):
        with pytest.raises(TargetError, match="the connection broke"):
            await run(ctx, clamd.address)
        ctx.again()
    with pytest.raises(ItemError, match="1 file not scanned: 100: clamd broke off each time") as caught:
        await run(ctx, clamd.address)
    assert caught.value.files == ("100",)
    assert len(set(clamd.streams)) == 199
    ctx.again()
    clamd.breaks = set()
    again = await scanned(tmp_path / "2", folder, clamd.address)  # a job of its own tries it as any other
    assert again.events[0].outcome == "success"


async def test_innocent_of_a_break(tmp_path: Path, clamd: FakeClamd) -> None:
    """A file that was on its way when clamd was restarted is clean when it is scanned alone."""
    folder = tree(tmp_path / "vol", FILES)
    clamd.breaks = {b"two"}
    ctx = LoneContext(tmp_path, folder)
    with pytest.raises(TargetError):
        await run(ctx, clamd.address)
    clamd.breaks = set()
    ctx.again()
    await run(ctx, clamd.address)
    assert ctx.events[0].detail.startswith("3 files clean")


async def test_several_at_once(tmp_path: Path, clamd: FakeClamd) -> None:
    """As many connections as there are slots: three files are under way together, or none is answered."""
    together = threading.Barrier(3)
    clamd.hold = lambda content: together.wait(20) and None if len(content) == 800_000 else None
    big = {f"{n}": bytes([n]) * 800_000 for n in range(18)}
    ctx = await scanned(tmp_path, tree(tmp_path / "vol", big), clamd.address, spare=2)
    assert ctx.events[0].detail.startswith("18 files clean")


async def test_limits_that_are_not_told(tmp_path: Path, clamd: FakeClamd) -> None:
    """Where clamd says OK to what it read in part, the receipt and doctor say so."""
    clamd.tells = False
    folder = tree(tmp_path / "vol", FILES)
    ctx = await scanned(tmp_path, folder, clamd.address)
    assert ctx.events[0].outcome == "warning"
    assert "reads a file only in part" in ctx.events[0].detail
    found = [said async for said in ScanWorker().doctor(options(clamd.address), str)]
    assert [ok for ok, _ in found] == [True, False]
    assert "AlertExceedsMax yes" in found[1][1]


async def test_old_definitions(tmp_path: Path, clamd: FakeClamd) -> None:
    """Definitions that are too old are a warning, in the receipt and of doctor."""
    recent = datetime.now(UTC) - timedelta(days=3)
    clamd.version = f"ClamAV 1.4.6/27701/{recent:%a %b %d %H:%M:%S %Y}\0".encode()
    folder = tree(tmp_path / "vol", FILES)
    for age, outcome in (("2d", "warning"), ("4d", "success")):
        ctx = await scanned(tmp_path, folder, clamd.address, definitions_age=age)
        assert ctx.events[0].outcome == outcome
        found = [ok async for ok, _ in ScanWorker().doctor(options(clamd.address, definitions_age=age), str)]
        assert found == ([True, False] if outcome == "warning" else [True])


async def test_doctor_away(short: Path) -> None:
    """Doctor says that nothing answers."""
    found = [said async for said in ScanWorker().doctor(options(f"unix:{short}/none"), str)]
    assert [ok for ok, _ in found] == [False]


@pytest.mark.parametrize(
    "address",
    ["/run/clamd", "unix:run/x", "unix:/" + "x" * 120, "tcp://host", "tcp://:1", "tcp://h:x", "http://h:1", "tcp://h:1/x", ""],
)  # fmt: skip
def test_addresses(address: str) -> None:
    """What no clamd can listen at is refused when config.yaml is read."""
    with pytest.raises(ValidationError):
        ScanOptions(clamd=address)


async def test_plan(tmp_path: Path) -> None:
    """Plan says what would be scanned, and by whom; nothing is asked."""
    ctx = LoneContext(tmp_path, tree(tmp_path / "vol", FILES))
    (planned,) = [one async for one in ScanWorker().plan(ctx, ScanOptions())]
    assert (planned.what, planned.where) == ("virus scan", "clamd at unix:/run/clamav/clamd.ctl")
    assert planned.detail.startswith("3 files")


async def test_many_small_files_in_order(tmp_path: Path, clamd: FakeClamd) -> None:
    """Each of many files is sent exactly once, however many connections there are."""
    content = {f"{n:04}": b"%d" % n for n in range(500)}
    ctx = await scanned(tmp_path, tree(tmp_path / "vol", content), clamd.address, spare=3)
    assert sorted(clamd.streams) == sorted(b"%d" % n for n in range(500))
    assert ctx.events[0].detail.startswith("500 files clean")


CONFIG = """
root: .
limits: {{jobs: 4}}
space: {{floor: 0}}
pipelines:
  all:
    match: ".*"
    steps: [{{scan: {{clamd: "{address}", definitions_age: 36500d}}}}]
"""


async def test_in_a_job(tmp_path: Path, short: Path) -> None:
    """A find fails the folder, people are told, and the receipt has the check; without clamd folders wait."""
    with fake_clamd(short) as fake:
        harness = Harness(tmp_path, CONFIG.format(address=fake.address))
        harness.arrive("bad", {"x.com": EICAR, "a": b"a"})
        async with harness.running():
            job = await harness.until_over("bad")
        assert harness.where("bad") == ["failed"]
        assert (tmp_path / "failed" / "bad" / "x.com").read_bytes() == EICAR
        assert [event for event, _ in harness.told] == ["failed"]
        receipt = next((tmp_path / "receipts").iterdir()).read_text()
        assert '"virus check"' in receipt
        assert "1 file with a finding (x.com: Eicar)" in receipt
        assert job.error is not None
        assert job.error.files == ("x.com",)
    harness.arrive("good")
    async with harness.running():
        await harness.until(
            lambda: bool(harness.jobs("good")) and harness.job("good").state is JobState.PAUSED
        )
    assert harness.where("good") == ["processing"]


# -- the real one ------------------------------------------------------------------------------


def _zipped(data: bytes, times: int = 1) -> bytes:
    for _ in range(times):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("inside", data)
        data = file.getvalue()
    return data


@pytest.mark.service
@pytest.mark.parametrize("tcp", [False, True])
async def test_real(tmp_path: Path, short: Path, tcp: bool) -> None:
    """The real clamd: clean, found (also in a zip), too large, nested too deeply."""
    folder = tree(
        tmp_path / "vol",
        {
            **FILES,
            "x.com": EICAR,
            "x.zip": _zipped(EICAR),
            "big": bytes(20 << 20),
            "deep.zip": _zipped(b"x", 40),
        },
    )
    with real_clamd(short, tcp=tcp, settings="AlertExceedsMax yes") as address:
        ctx = LoneContext(tmp_path, folder, spare=2)
        with pytest.raises(ItemError) as caught:
            await run(ctx, address)
        (event,) = ctx.events
        assert event.agent.startswith("ClamAV 1.")
        assert "3 files clean; 2 files with a finding" in event.detail
        assert "2 files not scanned" in event.detail
        assert "definitions without a version" in event.detail
        assert "clamd found something in 2 files: x.com, x.zip: Eicar.UNOFFICIAL" in str(caught.value)
        assert "big: it is larger than clamd takes" in str(caught.value)
        assert "deep.zip: clamd has not read all of it (Heuristics.Limits.Exceeded.MaxRecursion)" in str(
            caught.value
        )
        assert [ok async for ok, _ in ScanWorker().doctor(options(address), str)] == [True]


@pytest.mark.service
async def test_real_as_it_comes(tmp_path: Path, short: Path) -> None:
    """As Debian sets it up, clamd says OK to what it read in part: that is found out."""
    with real_clamd(short) as address:
        ctx = await scanned(tmp_path, tree(tmp_path / "vol", {"deep.zip": _zipped(EICAR, 40)}), address)
        assert ctx.events[0].outcome == "warning"
        assert [ok async for ok, _ in ScanWorker().doctor(options(address), str)] == [True, False]


async def test_outputs_of_an_earlier_step(tmp_path: Path, clamd: FakeClamd) -> None:
    """With `from`, what an earlier step has unpacked is scanned."""
    ctx = LoneContext(tmp_path, tree(tmp_path / "vol", FILES))
    source: Inputs = source_of(tree(tmp_path / "unpacked", {"x.com": EICAR}))
    ctx.source = source
    with pytest.raises(ItemError, match=r"x\.com: Eicar"):
        await run(ctx, clamd.address)
