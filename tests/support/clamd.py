"""A simulated clamd, as strict as the real one, and the real one where it is installed.

docs/simulators.md says what of it was seen, read or assumed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import socketserver
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.ports import free_port

#: The test file of all virus scanners, in two parts so that none removes this file.
EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"


@dataclass
class FakeClamd:
    """What it does, and what it was asked."""

    address: str = ""
    version: bytes = b"ClamAV 1.4.6/27700/Mon Jan  5 08:30:00 2026\0"
    pong: bytes = b"PONG\0"
    limit: int = 1 << 20  #: StreamMaxLength
    tells: bool = True  #: AlertExceedsMax
    replies: dict[bytes, bytes] = field(default_factory=dict)  #: content -> the whole answer
    early: dict[bytes, bytes] = field(default_factory=dict)  #: how a content begins -> an answer at once
    breaks: set[bytes] = field(default_factory=set)  #: contents at which the connection ends
    hold: Callable[[bytes], None] = lambda content: None  #: called with each content before its answer
    streams: list[bytes] = field(default_factory=list)  #: contents that were sent whole
    faults: list[str] = field(default_factory=list)  #: what broke the protocol
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def serve(self, connection: socket.socket) -> None:
        command = self._command(connection)
        if command == b"PING":
            connection.sendall(self.pong)
        elif command == b"VERSION":
            connection.sendall(self.version)
        elif command == b"INSTREAM":
            self._stream(connection)
        elif command:  # else whoever asked has gone
            self.faults.append(f"command {command!r}")
            connection.sendall(b"UNKNOWN COMMAND\0")

    @staticmethod
    def _command(connection: socket.socket) -> bytes:
        found = b""
        while not found.endswith(b"\0"):
            byte = connection.recv(1)
            if not byte:
                return found
            found += byte
        return found[1:-1] if found[:1] == b"z" else found

    def _stream(self, connection: socket.socket) -> None:
        content = b""
        while True:
            head = _exactly(connection, 4)
            if len(head) < 4:
                return  # whoever asked has gone
            (length,) = struct.unpack(">I", head)
            if not length:
                break
            if len(content) + length > self.limit:
                connection.sendall(b"INSTREAM size limit exceeded. ERROR\0")
                return  # and cut, with bytes unread
            piece = _exactly(connection, length)
            if len(piece) < length:
                return
            content += piece
            for begin, reply in self.early.items():
                if content.startswith(begin):
                    connection.sendall(reply)
                    return
        with contextlib.suppress(BlockingIOError):
            if connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                self.faults.append("bytes behind the end")
        self._judge(connection, content)

    def _judge(self, connection: socket.socket, content: bytes) -> None:
        self.hold(content)
        if content in self.breaks:
            return
        if content.startswith(b"PK") and content.count(b"PK\x03\x04") > 17:
            nested = b"stream: Heuristics.Limits.Exceeded.MaxRecursion FOUND\0"
            connection.sendall(nested if self.tells else b"stream: OK\0")
            return
        with self._lock:
            self.streams.append(content)
        usual = b"stream: Eicar FOUND\0" if EICAR in content else b"stream: OK\0"
        connection.sendall(self.replies.get(content, usual))


def _exactly(connection: socket.socket, length: int) -> bytes:
    """Return that many bytes, fewer where the connection has ended."""
    found = bytearray()
    while len(found) < length and (more := connection.recv(length - len(found))):
        found += more
    return bytes(found)


@contextlib.contextmanager
def fake_clamd(base: Path, *, tcp: bool = False) -> Iterator[FakeClamd]:
    """Run one until the block ends."""
    fake = FakeClamd()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                fake.serve(self.request)

    kind = socketserver.ThreadingTCPServer if tcp else socketserver.ThreadingUnixStreamServer

    class Server(kind):  # type: ignore[misc, valid-type]
        daemon_threads, request_queue_size = True, 64

        def shutdown_request(self, request: socket.socket) -> None:
            self.close_request(request)  # as clamd does: without an end that waits

    path = base / "clamd.ctl"
    path.unlink(missing_ok=True)
    server = Server(("127.0.0.1", 0) if tcp else str(path), Handler)
    fake.address = f"tcp://127.0.0.1:{server.server_address[1]}" if tcp else f"unix:{path}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def real_clamd(base: Path, *, tcp: bool = False, settings: str = "") -> Iterator[str]:
    """Run the clamd of Debian with one signature, of EICAR; yield its address. Skips where it is missing."""
    program = shutil.which("clamd", path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if program is None:
        pytest.skip("NOT TESTED WITH A REAL CLAMD: it is not installed (apt-get install clamav-daemon)")
    home = base / "real"
    (home / "db").mkdir(parents=True)
    md5 = hashlib.md5(EICAR, usedforsecurity=False).hexdigest()
    (home / "db" / "own.hdb").write_text(f"{md5}:{len(EICAR)}:Eicar\n")
    path, port = home / "s", free_port()
    listen = f"TCPSocket {port}\nTCPAddr 127.0.0.1" if tcp else f"LocalSocket {path}"
    (home / "clamd.conf").write_text(
        f"{listen}\nDatabaseDirectory {home / 'db'}\nTemporaryDirectory {home}\nForeground yes\n"
        f"StreamMaxLength 1M\nLogFile {home / 'log'}\n{settings}\n"
    )
    process = subprocess.Popen(
        [program, "-c", str(home / "clamd.conf")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + 60
        while not _answers(port if tcp else path):
            assert process.poll() is None, (home / "log").read_text()
            assert time.monotonic() < until
            time.sleep(0.02)
        yield f"tcp://127.0.0.1:{port}" if tcp else f"unix:{path}"
    finally:
        process.terminate()
        process.wait(30)


def _answers(place: int | Path) -> bool:
    family = socket.AF_INET if isinstance(place, int) else socket.AF_UNIX
    with socket.socket(family) as connection:
        try:
            connection.connect(("127.0.0.1", place) if isinstance(place, int) else str(place))
        except OSError:
            return False
        connection.sendall(b"zPING\0")
        return connection.recv(16) == b"PONG\0"
