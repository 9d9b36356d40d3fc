"""A GRIN of a library's: lists, conversions, archives; strict about who asks and what for.

What is known of it is what its public clients do with it: nobody outside its partners reaches it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import random
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

TOKEN = "ya29.not-to-be-seen"
PASSPHRASE = "correct horse 45"


def volume(barcode: str, pages: int = 2, *, wrong: str = "") -> dict[str, bytes]:
    """Return a volume's files; `wrong` names one that is not as checksum.md5 says."""
    files: dict[str, bytes] = {f"LIB_{barcode}.xml": b"<METS:mets/>"}
    for number in range(1, pages + 1):
        files[f"{number:08}.jp2"] = random.Random(f"{barcode}-{number}").randbytes(16_000)
        files[f"{number:08}.txt"] = f"page {number} of {barcode}\n".encode()
        files[f"{number:08}.html"] = b"<html/>"
    lines = [f"{hashlib.md5(data).hexdigest()}  {name}\n" for name, data in sorted(files.items())]
    if wrong:
        files[wrong] += b"!"
    return {**files, "checksum.md5": "".join(lines).encode()}


def sealed(files: dict[str, bytes], home: Path, passphrase: str = PASSPHRASE) -> bytes:
    """Return files as GRIN gives them: a gzipped tar, encrypted by gpg with a passphrase."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    home.mkdir(mode=0o700, exist_ok=True)
    argv = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--pinentry-mode", "loopback"]
    argv += ["--passphrase", passphrase, "--symmetric", "--output", "-"]
    try:
        return subprocess.run(argv, input=plain.getvalue(), capture_output=True, check=True).stdout
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=True)


@dataclass
class Grin:
    """The library LIB's place."""

    url: str = ""
    available: set[str] = field(default_factory=set)
    in_process: list[str] = field(default_factory=list)
    converted: dict[str, bytes] = field(default_factory=dict)  #: file name -> archive
    failed: set[str] = field(default_factory=set)
    asked: list[tuple[str, str]] = field(default_factory=list)  #: (method, path and query) of each request
    requested: list[str] = field(default_factory=list)  #: barcodes, in the order they were asked for
    ranges: list[str] = field(default_factory=list)  #: Range of each archive's GET
    cut_after: int | None = None  #: bytes of the next archive's body, then the connection breaks
    throttled: int = 0  #: so many lists are a page instead
    token: str = TOKEN  #: the one that is good

    def convert(self, barcode: str, archive: bytes) -> None:
        """Let a conversion come to its end."""
        self.in_process.remove(barcode)
        self.converted[f"LIB_{barcode}.tar.gz.gpg"] = archive

    def statuses(self, barcodes: list[str]) -> str:
        self.requested += barcodes
        lines = ["Barcode\tStatus"]
        for barcode in barcodes:
            if barcode in self.in_process:
                lines.append(f"{barcode}\tAlready being converted")
            elif barcode in self.available:
                self.in_process.append(barcode)
                lines.append(f"{barcode}\tSuccess")
            else:
                lines.append(f"{barcode}\tNot allowed to be downloaded")
        return "\n".join(lines) + "\n"

    def listed(self, name: str) -> str:
        kept = {"_in_process": self.in_process, "_failed": sorted(self.failed), "_converted": self.converted}
        return "".join(f"{one}\n" for one in kept[name])


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    grin: Grin

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _known(self) -> bool:
        self.grin.asked.append((self.command, self.path))
        if self.headers.get("Authorization") != f"Bearer {self.grin.token}":
            self._answer(302, Location="http://accounts.invalid/ServiceLogin?continue=x")
            return False
        return True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self._known():
            assert urlsplit(self.path).path == "/libraries/LIB/_process"
            self._answer(200, self.grin.statuses(body.split("\n")).encode(), Content_Type="text/plain")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if not self._known():
            return
        parts = urlsplit(self.path)
        name = parts.path.removeprefix("/libraries/LIB/")
        if name in ("_in_process", "_failed", "_converted"):
            assert parts.query == "format=text"
            if self.grin.throttled:
                self.grin.throttled -= 1
                self._answer(200, b"<html>Your request is unavailable</html>", Content_Type="text/html")
            else:
                self._answer(200, self.grin.listed(name).encode(), Content_Type="text/plain")
        elif name in self.grin.converted:
            self._archive(self.grin.converted[name])
        else:
            self._answer(404)

    def _archive(self, data: bytes) -> None:
        tag = f'"{hashlib.md5(data).hexdigest()}"'
        if self.command == "HEAD":
            self.send_response(200)
            self.send_header("ETag", tag)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            return
        wanted = self.headers.get("Range", "")
        self.grin.ranges.append(wanted)
        begin = 0
        if wanted and self.headers.get("If-Range") == tag:
            begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if begin else 200)
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(data) - begin))
        self.end_headers()
        if self.grin.cut_after is not None:
            data, self.grin.cut_after, self.close_connection = data[: begin + self.grin.cut_after], None, True
        self.wfile.write(data[begin:])


@contextlib.contextmanager
def grin() -> Iterator[Grin]:
    """Serve until the block ends."""
    made = Grin()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"grin": made}))
    made.url = f"http://127.0.0.1:{server.server_port}/libraries/LIB"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
