"""Sizes for people have one form."""

from __future__ import annotations

import re
from pathlib import Path

from rich.progress import Progress

import dittohead
from dittohead.cli.drop import _Sent


def test_nobody_else_writes_sizes() -> None:
    """No unit of sizes stands behind a number that is put into words, and no decimal one is spoken of."""
    own = re.compile(r"\}\s?[KMGTP]i?B\b|DownloadColumn|TransferSpeedColumn")
    package = Path(dittohead.__file__).parent
    files = [*package.rglob("*.py"), *package.rglob("*.js"), *package.rglob("*.html")]
    assert [path.name for path in files if own.search(path.read_text())] == []


def test_progress_is_told_in_the_same_units() -> None:
    """Of a copy of any size, before its pace is known too."""
    bar = Progress(_Sent())
    bar.add_task("x", total=3 << 29, completed=1 << 20)
    assert _Sent().render(bar.tasks[0]).plain == "1.0 MiB of 1.5 GiB"
