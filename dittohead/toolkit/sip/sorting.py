"""Sort files as people do, on disk: a million of them need little memory."""

from __future__ import annotations

import contextlib
import heapq
import json
from collections.abc import Generator, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from dittohead.toolkit import natural_order

#: Files that are sorted in memory at once.
RUN = 5_000

#: Runs that are merged at once: each is an open file.
_WIDTH = 200


def in_order(lines: Iterator[dict[str, Any]], scratch: Path, run: int = RUN) -> Iterator[dict[str, Any]]:
    """Yield lines in the natural order of their paths.

    Args:
        lines: hold `path`, in hex; no two the same.
        scratch: a directory for what does not fit into memory.
        run: lines that are sorted in memory at once.
    """
    runs: list[Path] = []
    while some := sorted(islice(lines, run), key=_key):
        runs.append(_written(scratch / f"run-{len(runs)}", iter(some)))
    level = 0
    while len(runs) > _WIDTH:
        level += 1
        groups = [runs[at : at + _WIDTH] for at in range(0, len(runs), _WIDTH)]
        runs = [
            _written(scratch / f"run-{level}-{number}", _merged(group)) for number, group in enumerate(groups)
        ]
    yield from _merged(runs)


def read(path: Path) -> Generator[dict[str, Any]]:
    """Yield the lines of a file of JSON lines."""
    with open(path, encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def _written(path: Path, lines: Iterator[dict[str, Any]]) -> Path:
    with open(path, "w", encoding="utf-8") as file:
        for line in lines:
            file.write(json.dumps(line) + "\n")
    return path


def _merged(runs: list[Path]) -> Iterator[dict[str, Any]]:
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(contextlib.closing(read(path))) for path in runs]
        yield from heapq.merge(*streams, key=_key)
    for path in runs:
        path.unlink()


def _key(line: dict[str, Any]) -> natural_order.Key:
    return natural_order.key(bytes.fromhex(line["path"]))
