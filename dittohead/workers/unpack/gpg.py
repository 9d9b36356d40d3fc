"""Decrypt by gpg, as a stream: the passphrase by a descriptor, a home of its own, its verdict at the end.

gpg gives out what it decrypts before it knows that nothing was changed: nothing of it may count before
`Gpg.judge`. What is read of gpg are its status lines, which are made for programs.

Source: GnuPG, doc/DETAILS, "Format of the --status-fd output"; gpg(1), --passphrase-fd.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import IO

from dittohead.model.errors import ItemError, TransientError
from dittohead.model.text import short
from dittohead.system.process import GRACE_S, TAIL, Child, Probe
from dittohead.workers.unpack.broken import BrokenArchive

GPG = Probe(program="gpg", package="gpg", version_pattern=r"gpg \(GnuPG[^)]*\) (\d+(?:\.\d+)+)")

#: Bytes of a pipe: as many as an unprivileged process may have. Source: pipe(7), pipe-max-size.
PIPE = 1 << 20

#: A longer one is a file that was mistaken for a passphrase.
_LONGEST = 4096

_STATUS = b"[GNUPG:] "


class WrongPassphrase(Exception):
    """The passphrase does not open the archive."""


class Gpg:
    """A running gpg. Write the archive to `stdin` and close it; read what it stands for from `stdout`."""

    def __init__(self, child: Child, stdin: IO[bytes], stdout: IO[bytes]) -> None:
        self.stdin, self.stdout = stdin, stdout
        self._child = child
        self._said = bytearray()
        self._listening = asyncio.create_task(self._listen(), name="gpg's words")

    async def _listen(self) -> None:
        stream = self._child.process.stderr
        assert stream is not None  # noqa: S101
        while data := await stream.read(TAIL):
            self._said += data
            del self._said[:-TAIL]

    async def judge(self) -> None:
        """Return when gpg has ended, and what it gave out is whole and unchanged.

        Raises: Broken; WrongPassphrase; ItemError: it is encrypted in a way that a passphrase does not open;
            TransientError: gpg was killed.
        """
        status = await self._child.exited()
        await asyncio.wait([self._listening], timeout=GRACE_S)
        self._judge(status)

    async def close(self) -> None:
        """Hear no more of it."""
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)

    def _judge(self, status: int) -> None:
        words = [line.removeprefix(_STATUS).split() for line in self._lines(status=True)]
        keys = {line[0] for line in words if line}
        if status == 0 and keys >= {b"DECRYPTION_OKAY", b"GOODMDC", b"END_DECRYPTION"}:
            return
        if status < 0:
            raise TransientError("gpg was killed from outside", hint="See whether memory ran out")
        if b"ENC_TO" in keys and b"NEED_PASSPHRASE_SYM" not in keys:
            hint = "Have it encrypted with a passphrase (gpg --symmetric), or decrypt it before"
            raise ItemError("it is encrypted for somebody's key, not with a passphrase", hint=hint)
        if b"BEGIN_DECRYPTION" not in keys:
            raise BrokenArchive("it is not a message that gpg has encrypted with a passphrase")
        failed = [line for line in words if line[:1] == [b"ERROR"]]
        if any(b"BAD_PASSPHRASE" in part for line in failed for part in line) and b"PLAINTEXT" not in keys:
            raise WrongPassphrase
        raise BrokenArchive(self._why(keys))

    def _why(self, keys: set[bytes]) -> str:
        if b"BADMDC" in keys:
            return "its bytes were changed since it was encrypted (gpg's check of integrity fails)"
        if b"GOODMDC" in keys:
            return "something follows the end of the encrypted message"
        said = [line.decode("utf-8", "replace") for line in self._lines(status=False)]
        if any("not integrity protected" in line for line in said):
            return "it is encrypted without protection of its integrity, which gpg refuses"
        last = [line.removeprefix("gpg: ") for line in said if line.startswith("gpg: ")]
        return f"gpg cannot decrypt it ({short(last[-1]) if last else 'it does not say why'})"

    def _lines(self, *, status: bool) -> list[bytes]:
        lines = bytes(self._said).splitlines()
        return [line for line in lines if line.startswith(_STATUS) is status]


def usable(passphrase: str) -> bool:
    """Tell whether gpg can be given a passphrase: it reads one line."""
    return 0 < len(passphrase.encode()) <= _LONGEST and "\n" not in passphrase and "\0" not in passphrase


@contextlib.asynccontextmanager
async def decrypting(home: Path, passphrase: str, env: Mapping[str, str]) -> AsyncIterator[Gpg]:
    """Start gpg for one message; it has ended when the block is left, whatever happens.

    Args:
        home: a directory for its own use alone, which is made, and removed at the end.
        passphrase: one that is `usable`; it goes through a pipe, not into arguments or environment.

    Raises: ItemError: gpg is not installed; OSError.
    """
    async with contextlib.AsyncExitStack() as stack:
        await asyncio.to_thread(_make_home, home)
        stack.push_async_callback(asyncio.to_thread, shutil.rmtree, home, ignore_errors=True)
        (given, give), (feed, stdin), (stdout, out) = (_pipe(stack) for _ in range(3))
        give.write(passphrase.encode())  # fits the pipe: nobody is waited for
        give.close()
        child = await stack.enter_async_context(
            Child.start(
                argv(home, given.fileno()),
                env=env,
                stdin=feed.fileno(),
                stdout=out.fileno(),
                stderr=subprocess.PIPE,
                fds=[given.fileno()],
            )
        )
        for end in (given, feed, out):  # those are gpg's
            end.close()
        gpg = Gpg(child, stdin, stdout)
        stack.push_async_callback(gpg.close)
        yield gpg


def argv(home: Path, passphrase: int) -> list[str]:
    """Return the program with its arguments: it asks no agent, reads no options and no keys of anybody's."""
    quiet = ["--batch", "--no-tty", "--no-options", "--no-autostart", "--no-auto-check-trustdb"]
    secret = ["--pinentry-mode", "loopback", "--passphrase-fd", str(passphrase)]
    return [GPG.path(), "--homedir", str(home), *quiet, *secret, "--status-fd", "2", "--decrypt"]


def _make_home(home: Path) -> None:
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(mode=0o700)


def _pipe(stack: contextlib.AsyncExitStack) -> tuple[IO[bytes], IO[bytes]]:
    """Return both ends of a large pipe, which are closed at the latest when the stack is left."""
    reading, writing = os.pipe()
    ends = os.fdopen(reading, "rb", buffering=0), os.fdopen(writing, "wb", buffering=0)
    for end in ends:
        stack.callback(end.close)
    with contextlib.suppress(OSError):  # a smaller one serves as well
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE)
    return ends
