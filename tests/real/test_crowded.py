"""Somebody holds as many connections as they can, without a token: the daemon's work goes on."""

from __future__ import annotations

import contextlib
import itertools
import os
import selectors
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import site
from tests.support.web_harness import OPERATOR, READER, TOKENS
from tests.web.test_lines import HELD

pytestmark = pytest.mark.service

CONFIG = """
root: .
space: {{floor: 0}}
http: {{listen: "127.0.0.1:{port}", tokens: people}}
pipelines:
  all: {{match: ".*", steps: [{{command: {{argv: ["true"]}}}}]}}
"""

#: Lines that somebody tries to hold, of a daemon that may open fewer files.
LINES, FILES = 400, 256


@contextlib.contextmanager
def crowd(port: int) -> Iterator[None]:
    """Open lines of every kind again and again, from many addresses, and send a byte now and then."""
    over = threading.Event()
    sent = [head for head in HELD.values() if not head.startswith(b"GET /healthz")]

    def opened(number: int) -> socket.socket:
        sock = socket.socket()
        sock.setblocking(False)
        sock.bind((f"127.2.{number >> 8 & 255}.{number & 255}", 0))
        with contextlib.suppress(BlockingIOError):
            sock.connect(("127.0.0.1", port))
        return sock

    def crowding() -> None:
        numbers = itertools.count()
        held: dict[socket.socket, int] = {}
        with selectors.DefaultSelector() as closed:
            while not over.is_set():
                while len(held) < LINES:
                    number = next(numbers)
                    sock = opened(number)
                    held[sock] = number
                    closed.register(sock, selectors.EVENT_READ)
                time.sleep(0.02)
                for sock in held:
                    with contextlib.suppress(OSError):
                        sock.send(sent[held[sock] % len(sent)] or b"\r")
                for key, _ in closed.select(0):
                    closed.unregister(key.fileobj)
                    assert isinstance(key.fileobj, socket.socket)
                    del held[key.fileobj]
                    key.fileobj.close()
            for sock in held:
                sock.close()

    thread = threading.Thread(target=crowding, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(20)


def ask(port: int, token: str) -> int:
    """Return the status of an answer, after a few tries: a connection may be one too many."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/api/v1/jobs")
    request.add_header("Authorization", f"Bearer {token}")
    for _ in range(5):
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            continue
    return 0


def test_folders_tokens_and_credentials_go_on_while_strangers_hold_lines(tmp_path: Path) -> None:
    """With 256 descriptors for all of it."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with site(tmp_path / "root", CONFIG.format(port=port)) as here:
        (here.root / "credentials").mkdir()
        people = here.root / "credentials" / "people"
        people.write_text(TOKENS)
        here.program = ["prlimit", f"--nofile={FILES}:{FILES}", *here.program]
        here.start()
        assert here.process is not None
        with crowd(port):
            here.until(lambda: here.events("http.crowded"))
            for number in range(3):
                here.drop(f"n{number}", {"a": b"1"})
                here.until(lambda: (here.root / "done" / f"n{number}").exists())  # noqa: B023  # waited for here
                assert ask(port, OPERATOR) == 200
                assert len(os.listdir(f"/proc/{here.process.pid}/fd")) < FILES * 3 // 4
            people.write_text(TOKENS.replace(READER, READER + "-new"))
            here.until(lambda: ask(port, READER + "-new") == 200)
            assert ask(port, READER) in (401, 429)  # the new one was wrong until it was read
        assert not here.events("http.tokens_refused")
        assert not here.events("watch.lost")
        assert here.stop() == 0
