"""Bytes on their way between files, gpg and the unpacking: hashed as they pass, ended when they must be."""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import select
import threading
from collections.abc import Callable, Iterator
from typing import IO

from dittohead.system.files import BLOCK
from dittohead.system.threads import Stop, Stopped

#: How long a thread waits for a pipe before it asks whether it is still wanted, milliseconds.
_ASK_MS = 200

#: Pieces that one thread may be ahead of the next.
_AHEAD = 8


class Digest:
    """Takes the SHA-256 and the size of what passes."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self.size = 0

    def update(self, piece: bytes) -> None:
        """Take in the next piece."""
        self._sha256.update(piece)
        self.size += len(piece)

    @property
    def sha256(self) -> str:
        """64 lower-case hex digits."""
        return self._sha256.hexdigest()


def of_file(fd: int, digest: Digest, stop: Stop) -> Iterator[bytes]:
    """Yield an open file in pieces, from its first byte."""
    at = 0
    while piece := os.pread(fd, BLOCK, at):
        stop.check()
        digest.update(piece)
        at += len(piece)
        yield piece


def of_pipe(pipe: IO[bytes], stop: Stop) -> Iterator[bytes]:
    """Yield what comes out of a pipe, until it is closed at its other end."""
    os.set_blocking(pipe.fileno(), False)
    poll = select.poll()
    poll.register(pipe.fileno(), select.POLLIN)
    while True:
        stop.check()
        if not poll.poll(_ASK_MS):
            continue
        piece = os.read(pipe.fileno(), BLOCK)
        if not piece:
            return
        yield piece


def into_pipe(pieces: Iterator[bytes], pipe: IO[bytes], stop: Stop) -> None:
    """Write pieces into a pipe and close it; to all of them, also when nobody reads it any more."""
    os.set_blocking(pipe.fileno(), False)
    poll = select.poll()
    poll.register(pipe.fileno(), select.POLLOUT)
    deaf = False
    for piece in pieces:
        left = memoryview(piece)
        while left and not deaf:
            stop.check()
            if poll.poll(_ASK_MS):
                try:
                    left = left[os.write(pipe.fileno(), left) :]
                except BrokenPipeError:  # gpg has seen enough; it says why
                    deaf = True
    pipe.close()


class Flow(Stop):
    """Ends all threads that work on one archive, when one of them has ended or the step is to stop."""

    def __init__(self, outer: Stop) -> None:
        super().__init__()
        self._outer = outer

    def check(self) -> None:
        """Leave if asked to. Raises: Stopped."""
        self._outer.check()
        super().check()


class _Handover:
    """Pieces on their way from the thread that makes them to the one that takes them."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._pieces = queue.Queue[bytes | BaseException | None](_AHEAD)

    def fill(self, make: Callable[[], Iterator[bytes]]) -> None:
        """Make all pieces; what is raised meanwhile is raised again by the one who takes them."""
        last: BaseException | None = None
        try:
            for piece in make():
                self._put(piece)
        except BaseException as error:  # noqa: BLE001  # raised again by the other thread
            last = error
        with contextlib.suppress(Stopped):  # nobody takes it any more
            self._put(last)

    def _put(self, piece: bytes | BaseException | None) -> None:
        while True:
            self._flow.check()
            with contextlib.suppress(queue.Full):
                self._pieces.put(piece, timeout=_ASK_MS / 1000)
                return

    def taken(self) -> Iterator[bytes]:
        """Yield the pieces. Raises: what made them; Stopped."""
        while True:
            try:
                piece = self._pieces.get(timeout=_ASK_MS / 1000)
            except queue.Empty:
                self._flow.check()
                continue
            if piece is None:
                return
            if isinstance(piece, BaseException):
                raise piece
            yield piece


@contextlib.contextmanager
def ahead(make: Callable[[], Iterator[bytes]], flow: Flow) -> Iterator[Iterator[bytes]]:
    """Make pieces in a thread of their own while those before are worked on; it has ended after the block.

    Raises: whatever `make` raises, where the next piece is asked for; Stopped.
    """
    handover = _Handover(flow)
    thread = threading.Thread(target=handover.fill, args=(make,), name="unpack")
    thread.start()
    try:
        yield handover.taken()
    finally:
        flow.set()
        thread.join()
