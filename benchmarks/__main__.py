"""Run benchmarks and print one table: `python -m benchmarks [NAME...] [--quick] [--markdown] [--dir DIR]`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import (
    backlog,
    bags,
    claim,
    commands,
    convert,
    engine,
    formats,
    grin,
    hashing,
    idle,
    jp2,
    page,
    rsync,
    s3,
    tiles,
    unpack,
)
from benchmarks.common import Row, settle_disk, workplace

ALL: dict[str, Callable[[Path, bool], Iterator[Row]]] = {
    "claim": claim.measure,
    "rsync": rsync.measure,
    "convert": convert.measure,
    "s3": s3.measure,
    "formats": formats.measure,
    "manifest": hashing.measure,
    "engine": engine.measure,
    "idle": idle.measure,
    "commands": commands.measure,
    "backlog": backlog.measure,
    "tiles": tiles.measure,
    "jp2": jp2.measure,
    "page": page.measure,
    "unpack": unpack.measure,
    "bags": bags.measure,
    "grin": grin.measure,
}
_COLUMNS = ("what", "ours", "peer", "ratio", "goal", "holds")
_HOLDS = {True: "yes", False: "no", None: ""}


def main() -> None:
    """Run what is asked for; the exit status says whether all goals hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure against peers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of: {', '.join(ALL)}")
    parser.add_argument("--quick", action="store_true", help="smaller sizes")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--dir", help="where to work: on a disk, not in memory (default: /var/tmp)")
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in ALL]
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]!r}; there are: {', '.join(ALL)}")
    rows = [row for name in given.names or ALL for row in _run(name, given.dir, quick=given.quick)]
    (_print_markdown if given.markdown else _print)(rows)
    raise SystemExit(any(row.holds is False for row in rows))


def _run(name: str, where: str | None, *, quick: bool) -> list[Row]:
    started = time.monotonic()
    with workplace(where) as base:
        settle_disk()
        rows = list(ALL[name](base, quick))
    print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return rows


def _cells(row: Row) -> list[str]:
    return [row.name, row.ours, row.peer, row.ratio, row.goal, _HOLDS[row.holds]]


def _print(rows: list[Row]) -> None:
    table = Table(box=None, header_style="bold")
    for column in _COLUMNS:
        table.add_column(column)
    for row in rows:
        table.add_row(*_cells(row), style="red" if row.holds is False else None)
    Console(width=160).print(table)


def _print_markdown(rows: list[Row]) -> None:
    for cells in (list(_COLUMNS), ["---"] * len(_COLUMNS), *map(_cells, rows)):
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
