"""The child program: identifies files by Siegfried, whatever happens to one of them.

It says first what it is, then answers a JSON request a line with a JSON line. Paths are hexadecimal:

    {"siegfried": VERSION, "signatures": TEXT}
    {"root": DIR, "paths": [HEX, ...], "workers": N}  ->  {"files": [FILE, ...]}, in the same order
    FILE: {"matches": [{"id", "format", "version", "mime", "basis", "warning"}, ...], "error": TEXT}

Siegfried opens by name, and follows links. So it is given a link to a descriptor that was opened here, with
the file's own extension.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pygfried

from dittohead.model.errors import ItemError
from dittohead.system import files

_KEPT = ("id", "format", "version", "mime", "basis", "warning")

#: Extensions as PRONOM has them; others tell it nothing.
_EXTENSION = re.compile(rb"\.[A-Za-z0-9_~+-]{1,24}\Z")

#: Characters of one text that are kept: a list of possible formats may be long.
_MOST = 400


def main() -> None:
    """Serve requests from standard input until it ends; the argument is an empty directory."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # a library that prints must not break the protocol
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    scanner = pygfried.Scanner()
    links = Path(sys.argv[1])
    _answer(answers, _about())
    for line in sys.stdin.buffer:
        request = json.loads(line)
        paths = [bytes.fromhex(path) for path in request["paths"]]
        found = _identified(scanner, links, request["root"], paths, request["workers"])
        _answer(answers, {"files": found})


def _answer(answers: IO[bytes], told: dict[str, Any]) -> None:
    answers.write(json.dumps(told).encode() + b"\n")


def _about() -> dict[str, Any]:
    told = pygfried.identify_many([])
    return {
        "siegfried": told["siegfried"],
        "signatures": "; ".join(one["details"] for one in told["identifiers"]),
    }


def _identified(
    scanner: Any, links: Path, root: str, paths: list[bytes], workers: int
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"matches": [], "error": ""} for _ in paths]
    with contextlib.ExitStack() as stack:
        names = {}
        for number, path in enumerate(paths):
            try:
                fd = stack.enter_context(files.opened_beneath(Path(root), path))
            except ItemError as error:
                found[number]["error"] = error.what
            except OSError as error:
                found[number]["error"] = error.strerror or str(error)
            else:
                names[stack.enter_context(_link(links, number, path, fd))] = number
        if names:
            for told in scanner.identify_many(list(names), workers=workers)["files"]:
                found[names[told["filename"]]] = _kept(told)
    return found


@contextlib.contextmanager
def _link(links: Path, number: int, path: bytes, fd: int) -> Iterator[str]:
    extension = _EXTENSION.search(path.rpartition(b"/")[2])
    link = links / f"{number}{extension[0].decode() if extension else ''}"
    link.symlink_to(f"/proc/self/fd/{fd}")
    try:
        yield str(link)
    finally:
        link.unlink()


def _kept(told: dict[str, Any]) -> dict[str, Any]:
    error = told["errors"]
    return {
        "matches": [{key: match[key][:_MOST] for key in _KEPT} for match in told["matches"]],
        "error": "" if error == "empty source" else error[:_MOST],
    }


if __name__ == "__main__":
    main()
