"""What clamd is asked, and what its answers mean. Blocking: for threads."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import select
import socket
import struct
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Literal, NoReturn
from urllib.parse import urlsplit

from dittohead.model.errors import TargetError
from dittohead.model.text import short
from dittohead.system.threads import Stop

#: Seconds to connect, and to answer a command without a file.
_SHORT_S = 20.0

#: Seconds between two looks whether the step was stopped.
_POLL_S = 0.5

#: The longest answer, bytes.
_ANSWER_MOST = 1 << 16

#: Bytes of a file in one piece.
_PIECE = 1 << 18

_COMMAND = b"zINSTREAM\0"
_LENGTH = struct.Struct(">I")

#: The longest path of a socket. Source: unix(7), sun_path.
PATH_MOST = 107

#: More than any clamd is set to follow (MaxRecursion, by default 17).
_NESTED = 120

_FOUND = re.compile(r"stream: (.+) FOUND", re.DOTALL)

#: What clamd calls a file that it has not looked into, or not to its end. Source: clamd.conf(5),
#: AlertExceedsMax, AlertEncrypted.
_NOT_READ = ("Heuristics.Limits.Exceeded", "Heuristics.Encrypted")

Outcome = Literal["clean", "found", "not scanned"]


@dataclass(frozen=True, kw_only=True)
class ScanVerdict:
    """What clamd says of a file."""

    outcome: Outcome
    what: str = ""  #: what was found, or why it was not scanned


@dataclass(frozen=True, kw_only=True)
class Scanned:
    """What has come of reading a file."""

    verdict: ScanVerdict
    sha256: str  #: of what was read, which is what was sent where the verdict is clean


@dataclass(frozen=True, kw_only=True)
class Version:
    """What VERSION answers."""

    engine: str  #: such as "ClamAV 1.4.6"
    definitions: str = ""  #: their number; "" where clamd has none but a site's own
    made_at: datetime | None = None  #: when these were made; the answer names no time zone, UTC is assumed

    def __str__(self) -> str:
        if not self.definitions:
            return "definitions without a version"
        when = "" if self.made_at is None else f" of {self.made_at:%Y-%m-%d}"
        return f"definitions {self.definitions}{when}"

    def older_than(self, seconds: float) -> bool:
        """Tell whether the definitions are known to be older."""
        return self.made_at is not None and (datetime.now(UTC) - self.made_at).total_seconds() > seconds


class BrokenConnection(Exception):
    """The connection ended, or fell silent, while clamd had a file: the file or clamd may be at fault."""


def problem_of(address: str) -> str:
    """Return what is wrong with an address; "" for nothing."""
    if address.startswith("unix:"):
        path = address.removeprefix("unix:")
        if not path.startswith("/") or path.startswith("//"):
            return "the path of the socket must begin with one /, as in unix:/run/clamav/clamd.ctl"
        if len(os.fsencode(path)) > PATH_MOST:
            return f"the path of a socket can have {PATH_MOST} bytes at most"
        return ""
    parts = urlsplit(address)
    try:
        port = parts.port
    except ValueError:
        port = None
    rest = parts.path or parts.query or parts.fragment or parts.username or parts.password
    if parts.scheme != "tcp" or not parts.hostname or port is None or rest:
        return "write unix:/run/clamav/clamd.ctl, or tcp://HOST:3310"
    return ""


class Clamd:
    """One clamd; a connection for each question, so several threads may ask at once.

    Args:
        address: `unix:PATH` or `tcp://HOST:PORT`.
        silent_s: seconds that it may say and take nothing while it has a file.
    """

    def __init__(self, address: str, silent_s: float) -> None:
        self.address, self._silent_s = address, silent_s

    def ping(self) -> None:
        """See that it answers. Raises: TargetError."""
        if (answer := self._asked(b"PING")) != b"PONG":
            self._no_answer(answer)

    def version(self) -> Version:
        """Return its version, and that of its definitions. Raises: TargetError."""
        answer = self._asked(b"VERSION")
        engine, _, rest = answer.decode("ascii", "backslashreplace").partition("/")
        if not engine.startswith("ClamAV "):
            self._no_answer(answer)
        number, _, date = rest.partition("/")
        made_at = None
        with contextlib.suppress(ValueError):
            made_at = datetime.strptime(date.strip(), "%a %b %d %H:%M:%S %Y").replace(tzinfo=UTC)
        return Version(engine=engine, definitions=short(number), made_at=made_at)

    def tells_limits(self, stop: Stop) -> bool:
        """Tell whether it says so where it has not read a file to its end: it does not by default.

        Asked by a small archive that is nested deeper than any clamd follows.
        Raises: TargetError.
        """
        pieces = iter([_nested()])
        try:
            answer = self._streamed(lambda room: _filled(room, next(pieces, b"")), stop, lambda size: None)
        except BrokenConnection as error:
            raise self._fault(f"the connection broke: {error}") from error
        return answer.outcome == "not scanned"

    def scan(self, fd: int, stop: Stop, read: Callable[[int], None]) -> Scanned:
        """Send an open file, from where it stands, and return the verdict.

        Args:
            read: is given the size of each piece that was read.

        Raises: TargetError: clamd cannot be reached, is busy, or is something else; Broken; Stopped;
            OSError: the file cannot be read.
        """
        digest = hashlib.sha256()

        def fill(room: memoryview) -> int:
            count = os.readv(fd, [room])
            digest.update(room[:count])
            return count

        verdict = self._streamed(fill, stop, read)
        room = memoryview(bytearray(_PIECE))  # what clamd did not take is read all the same
        while count := fill(room):
            stop.check()
            read(count)
        return Scanned(verdict=verdict, sha256=digest.hexdigest())

    # -- one question ------------------------------------------------------------------------

    def _asked(self, command: bytes) -> bytes:
        try:
            with self._connected() as connection:
                line = _Line(connection, Stop(), _SHORT_S)
                line.send(memoryview(b"z" + command + b"\0"))
                answer = line.answer()
        except BrokenConnection as error:
            raise self._fault(f"the connection broke: {error}") from error
        if answer == b"BUSY":
            raise self._fault("it is busy")
        return answer

    def _streamed(
        self, fill: Callable[[memoryview], int], stop: Stop, read: Callable[[int], None]
    ) -> ScanVerdict:
        # Of the first piece the command stands before its length: a small file is one packet.
        buffer = memoryview(bytearray(len(_COMMAND) + _LENGTH.size + _PIECE))
        head = len(_COMMAND) + _LENGTH.size
        buffer[: len(_COMMAND)] = _COMMAND
        begin, whole = 0, False
        with self._connected() as connection:
            line = _Line(connection, stop, self._silent_s)
            while not whole:
                count = fill(buffer[head : head + _PIECE])
                read(count)
                _LENGTH.pack_into(buffer, len(_COMMAND), count)  # a length of zero ends it
                if not line.send(buffer[begin : head + count]):
                    break
                begin, whole = len(_COMMAND), not count
            answer = line.answer()
        return self._verdict(answer, whole=whole)

    def _verdict(self, answer: bytes, *, whole: bool) -> ScanVerdict:
        """Return what an answer means.

        Args:
            whole: all of the file was sent before it came.

        Raises: TargetError: it is none.
        """
        text = answer.decode("utf-8", "backslashreplace")
        if text == "stream: OK" and whole:
            return ScanVerdict(outcome="clean")
        if found := _FOUND.fullmatch(text):
            name = short(found[1])
            if name.startswith(_NOT_READ):
                return ScanVerdict(outcome="not scanned", what=f"clamd has not read all of it ({name})")
            return ScanVerdict(outcome="found", what=name)
        if text == "INSTREAM size limit exceeded. ERROR":
            return ScanVerdict(outcome="not scanned", what="it is larger than clamd takes (StreamMaxLength)")
        if text.endswith("ERROR"):
            return ScanVerdict(outcome="not scanned", what=f"clamd says: {short(text)}")
        if text == "BUSY":
            raise self._fault("it is busy")
        return self._no_answer(answer)

    def _no_answer(self, answer: bytes) -> NoReturn:
        said = short(answer.decode("utf-8", "backslashreplace"))
        raise self._fault(f"what it said is not an answer of clamd: {said!r}")

    def _fault(self, what: str) -> TargetError:
        hint = "See that clamd runs (systemctl status clamav-daemon), then it goes on by itself"
        return TargetError(what, where=f"clamd at {self.address}", hint=hint)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[socket.socket]:
        try:
            connection = self._connection()
        except OSError as error:
            raise self._fault(f"it cannot be reached ({error.strerror or error})") from error
        with connection:
            connection.setblocking(False)
            yield connection

    def _connection(self) -> socket.socket:
        if not self.address.startswith("unix:"):
            parts = urlsplit(self.address)
            connection = socket.create_connection((parts.hostname, parts.port), timeout=_SHORT_S)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(_SHORT_S)
            connection.connect(self.address.removeprefix("unix:"))
        except BaseException:
            connection.close()
            raise
        return connection


class _Line:
    """One connection, of which neither side can make us wait without end."""

    def __init__(self, connection: socket.socket, stop: Stop, silent_s: float) -> None:
        self._connection, self._stop, self._silent_s = connection, stop, silent_s
        self._poll = select.poll()

    def send(self, data: memoryview) -> bool:
        """Send data; return False as soon as the other side answers or takes no more.

        Raises: Broken: it takes nothing for too long; Stopped.
        """
        while data:
            if not self._ready(select.POLLOUT | select.POLLIN) & select.POLLOUT:
                return False
            try:
                data = data[self._connection.send(data) :]
            except BlockingIOError:
                continue
            except OSError:  # it may have answered before it hung up
                return False
        return True

    def answer(self) -> bytes:
        """Return the answer, without the zero byte at its end.

        Raises: Broken: it ends before, or does not come; Stopped.
        """
        found = b""
        while b"\0" not in found:
            self._ready(select.POLLIN)
            try:
                more = self._connection.recv(_ANSWER_MOST)
            except BlockingIOError:
                continue
            except OSError as error:
                raise BrokenConnection(error.strerror or str(error)) from error
            if not more:
                raise BrokenConnection(
                    "it was closed in the middle of an answer" if found else "it was closed"
                )
            found += more
            if len(found) > _ANSWER_MOST:
                raise BrokenConnection("the answer has no end")
        return found.partition(b"\0")[0]

    def _ready(self, events: int) -> int:
        """Wait until something of these can be done; return what. An answer comes before all else."""
        self._poll.register(self._connection, events)
        until = time.monotonic() + self._silent_s
        while True:
            self._stop.check()
            found = self._poll.poll(min(_POLL_S, self._silent_s) * 1000)
            if found:
                happened = found[0][1]
                return select.POLLIN if happened & select.POLLIN else happened
            if time.monotonic() > until:
                raise BrokenConnection(f"there was neither an answer nor a read for {self._silent_s:g} s")


def _filled(room: memoryview, data: bytes) -> int:
    room[: len(data)] = data
    return len(data)


@cache
def _nested() -> bytes:
    """Return a zip archive in a zip archive, and so on; some 13 kB."""
    data = b"dittohead asks whether limits are told"
    for _ in range(_NESTED):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(zipfile.ZipInfo("a.zip"), data)
        data = file.getvalue()
    return data
