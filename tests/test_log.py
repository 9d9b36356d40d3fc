"""A log that cannot be written: nobody waits for it, nothing ends by it, and what is missing is counted."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog

from dittohead.system import log
from dittohead.system.log_stream import LogStream
from tests.support.daemon import site
from tests.support.harness import Harness

CONFIG = "root: .\npipelines: {all: {match: '.*', steps: [{checksum: {}}]}}\n"


def until(check: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not check():
        assert time.monotonic() < end
        time.sleep(0.002)


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe that holds one page."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    try:
        yield reader, writer
    finally:
        for fd in (reader, writer):
            with contextlib.suppress(OSError):
                os.close(fd)


def test_lines_nobody_reads_are_bounded_counted_and_said_once_it_can_be_written_again() -> None:
    """What came first is kept, what did not fit is counted, and the count stands where the gap is."""
    with pipe() as (reader, writer):
        stream = LogStream(writer, lambda lines: void(stream.write(f"{lines} dropped\n")), most=10_000)
        for number in range(3000):
            stream.write(f"line {number:04}\n")
        read = b""
        while b"dropped" not in read:
            read += os.read(reader, 65536)
        lines = read.decode().splitlines()
        kept = len(lines) - 1
        assert lines[:-1] == [f"line {number:04}" for number in range(kept)]
        assert lines[-1] == f"{3000 - kept} dropped"
        stream.write("after\n")
        until(lambda: b"after\n" in os.read(reader, 65536))


def void(_: object) -> None:
    return None


def test_a_line_in_pieces_is_not_glued_to_what_follows_a_gap() -> None:
    """A traceback comes in pieces; half of one before the gap ends with a line end of its own."""
    with pipe() as (reader, writer):
        stream = LogStream(writer, lambda lines: void(stream.write(f"{lines} dropped\n")), most=100)
        stream.write("x" * 90)
        stream.write("y" * 90 + "\n")
        read = b""
        while b"dropped" not in read:
            read += os.read(reader, 65536)
        assert read == b"x" * 90 + b"\n1 dropped\n"


def test_a_full_disk_is_waited_for_and_loses_no_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    """Written in part, then refused, then written again: each byte comes out once."""
    written, refuse = bytearray(), threading.Event()
    refuse.set()

    def write(fd: int, data: memoryview) -> int:
        if refuse.is_set() and len(written) >= 5:
            raise OSError(errno.ENOSPC, "full")
        part = data[:5]
        written.extend(part)
        return len(part)

    monkeypatch.setattr("dittohead.system.log_stream._AGAIN_S", 0.01)
    monkeypatch.setattr("dittohead.system.log_stream.os.write", write)
    stream = LogStream(2, lambda lines: None)
    stream.write("the first line\n")
    until(lambda: len(written) == 5)
    refuse.clear()
    stream.finish(30)
    assert bytes(written) == b"the first line\n"


def test_a_descriptor_that_does_not_block_is_waited_for() -> None:
    """Others who share it may have made it so; EAGAIN is not a fault."""
    with pipe() as (reader, writer):
        os.set_blocking(writer, False)
        stream = LogStream(writer, lambda lines: None)
        text = "".join(f"{number}\n" for number in range(20_000))
        stream.write(text)
        read = b""
        while len(read) < len(text):
            read += os.read(reader, 65536)
        assert read.decode() == text


def test_without_standard_error_nothing_is_written() -> None:
    """Descriptor 2 may be any file then, the store's among them."""
    stream = LogStream(None, lambda lines: None)
    assert stream.write("lost\n") == 5
    assert not stream.isatty()
    stream.finish()


END = """
import sys
from dittohead import daemon
from dittohead.system import log
daemon.log_in_thread()
log.configure(json=True)
for _ in range({lines}):
    log.get().info("x", text="y" * 80)
raise RuntimeError("the last word")
"""


def test_the_traceback_at_the_very_end_comes_out() -> None:
    """Nothing that was said is lost at a regular end, what Python itself says last included."""
    said = subprocess.run(
        [sys.executable, "-c", END.format(lines=2000)], capture_output=True, text=True, check=False
    )
    assert said.returncode == 1
    assert said.stderr.count('"event": "x"') == 2000
    assert said.stderr.endswith("RuntimeError: the last word\n")


@pytest.mark.parametrize("kind", ["unread", "closed", "full", "none"])
def test_a_process_ends_with_its_own_status_whatever_its_log_is(kind: str) -> None:
    """A pipe that nobody reads, one without a reader, a full disk, no standard error at all."""
    command = [sys.executable, "-c", END.format(lines=2000)]
    with pipe() as (reader, writer), open("/dev/full", "wb") as full:
        if kind == "closed":
            os.close(reader)
        if kind == "none":
            command = ["/bin/sh", "-c", 'exec "$@" 2>&-', "sh", *command]
        ended = subprocess.run(command, stderr=full if kind == "full" else writer, timeout=60, check=False)
    assert ended.returncode == 1


@pytest.mark.parametrize("command", [["--help"], ["list", "--json"]])
def test_what_reads_the_commands_may_close_its_end(command: list[str], tmp_path: Path) -> None:
    """`dittohead schema | head -1` ends quietly; where the disk is full, that is said."""
    harness = Harness(tmp_path / "root")
    harness.store.close()
    (tmp_path / "root" / "config.yaml").write_text(CONFIG)
    reader, writer = os.pipe()
    os.close(reader)
    assert ended(command, writer, tmp_path / "root") == (0, b"")
    os.close(writer)
    with open("/dev/full", "wb") as full:
        lost = b"error: standard output cannot be written (No space left on device)\n"
        assert ended(command, full.fileno(), tmp_path / "root") == (os.EX_IOERR, lost)


def ended(command: list[str], stdout: int, cwd: Path) -> tuple[int, bytes]:
    argv = [sys.executable, "-m", "dittohead", *command]
    said = subprocess.run(argv, stdout=stdout, stderr=subprocess.PIPE, check=False, cwd=cwd)
    return said.returncode, said.stderr


DAEMON = """
root: .
limits: {jobs: 8, checksum: 8}
space: {floor: 0}
log: debug
pipelines: {all: {match: ".*", steps: [{checksum: {}}]}}
"""


@pytest.mark.service
@pytest.mark.parametrize("kind", ["unread", "closed", "full"])
def test_a_daemon_works_on_whatever_becomes_of_its_log(kind: str, tmp_path: Path) -> None:
    """Many folders, a log of one page that nobody reads (or no reader, or a full disk): all are done, and
    the stop is as quick as ever. When it is read again, what is missing is said.
    """
    with pipe() as (reader, writer), open("/dev/full", "wb") as full, site(tmp_path / "root", DAEMON) as here:
        here.start_into(full if kind == "full" else writer)
        if kind == "closed":
            os.close(reader)
        os.close(writer)
        here.log.touch()
        here.until((here.root / "state" / "live.json").exists)
        names = {f"f{number:02}" for number in range(60)}
        for name in sorted(names):
            here.drop(name, {"a": name})
        here.until(lambda: set(os.listdir(here.root / "done")) == names)
        assert here.process is not None
        began = time.monotonic()
        assert here.stop(timeout_s=30) == 0
        assert time.monotonic() - began < 15


def test_a_traceback_shows_no_variables(capsys: pytest.CaptureFixture[str]) -> None:
    """Passwords are among them, and the log on a terminal is copied into mails."""
    try:
        for pretty in (False, True):
            log.configure(json=not pretty)
            password = "S3CRET" + "VALUE"
            try:
                raise ValueError(len(password))
            except ValueError:
                log.get().exception("x")
    finally:
        structlog.reset_defaults()
    said = capsys.readouterr().err
    assert said.count("ValueError: 11") == 2
    assert "S3CRETVALUE" not in said
