"""Build folders from data: `tree(path, {"a.tif": b"...", "sub": {...}, "l": symlink("a.tif")})`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class symlink:  # reads as a builder
    """A symbolic link to `to`."""

    to: str


@dataclass(frozen=True)
class fifo:
    """A named pipe nobody writes to."""


def tree(path: Path, what: Mapping[str | bytes, Any]) -> Path:
    """Make the directory `path` holding `what`; names may be bytes that are not UTF-8."""
    path.mkdir(parents=True, exist_ok=True)
    base = os.fsencode(path)
    for name, value in what.items():
        full = os.path.join(base, os.fsencode(name))
        if isinstance(value, Mapping):
            tree(Path(os.fsdecode(full)), value)
        elif isinstance(value, symlink):
            os.symlink(value.to, full)
        elif isinstance(value, fifo):
            os.mkfifo(full)
        else:
            data = value.encode() if isinstance(value, str) else value
            with open(full, "wb") as file:
                file.write(data)
    return path


def read_tree(path: Path) -> dict[bytes, bytes]:
    """Return {relative path: content} of every regular file below `path`."""
    base = os.fsencode(path)
    found = {}
    for folder, _, names in os.walk(base):
        for name in names:
            full = os.path.join(folder, name)
            if os.path.isfile(full) and not os.path.islink(full):
                with open(full, "rb") as file:
                    found[os.path.relpath(full, base)] = file.read()
    return found
