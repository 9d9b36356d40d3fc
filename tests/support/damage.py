"""What an editor, a fault of the disk or a careless program makes of a file."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path


def _written(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _cut(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    _written(path, data[: rng.randrange(len(data) + 1)])


def _newline(path: Path, rng: random.Random) -> None:
    _written(path, path.read_bytes() + b"\n")


def _flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes() or b"\0")
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    _written(path, bytes(data))


def _replaced(make: Callable[[Path], None]) -> Callable[[Path, random.Random], None]:
    def damage(path: Path, rng: random.Random) -> None:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        make(path)

    return damage


def _writing(data: bytes) -> Callable[[Path, random.Random], None]:
    return _replaced(lambda path: _written(path, data))


#: Each is given a file that is there, and a source of chance.
DAMAGES: dict[str, Callable[[Path, random.Random], None]] = {
    "cut": _cut,
    "one more newline": _newline,
    "a bit flipped": _flip,
    "empty": _writing(b""),
    "not UTF-8": _writing(b'{"path":"\xff\xfe"}\n'),
    "half a line": _writing(b'{"path":"a","si'),
    "a key missing": _writing(b'{"size":5}\n'),
    "wrong types": _writing(b'{"path":7,"size":"five","sha256":[]}\n'),
    "a list": _writing(b"[1, 2]\n"),
    "a number": _writing(b"12\n"),
    "nested deep": _writing(b"[" * 100_000 + b"\n"),
    "a line without an end": _writing(b'{"path":"' + b"a" * (9 << 20)),
    "a directory": _replaced(Path.mkdir),
    "a FIFO": _replaced(os.mkfifo),
    "a link to itself": _replaced(lambda path: path.symlink_to(path.name)),
    "a link elsewhere": _replaced(lambda path: path.symlink_to("/dev/zero")),
    "mode 000": lambda path, rng: path.chmod(0),
    "gone": _replaced(lambda path: None),
}
