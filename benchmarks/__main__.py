"""Run benchmarks and print one table: `python -m benchmarks [NAME...] [--quick] [--dir DIR]`."""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.table import Table

from benchmarks.common import Row, workplace
from benchmarks.suite import ALL


def main() -> None:
    """Run what is asked for; the exit status says whether all goals hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ALL)}")
    parser.add_argument("--quick", action="store_true", help="smaller sizes")
    parser.add_argument("--dir", help="where to work; a disk, not a tmpfs")
    given = parser.parse_args()
    rows: list[Row] = []
    for name in given.names or ALL:
        with workplace(given.dir) as base:
            for row in ALL[name](base, given.quick):
                rows.append(row)
                print("...", row.name, row.ours, row.peer, row.ratio, flush=True)
    _print(rows)
    raise SystemExit(any(row.holds is False for row in rows))


def _print(rows: list[Row]) -> None:
    table = Table(box=None, header_style="bold")
    for column in ("what", "ours", "peer", "ratio", "goal", "holds"):
        table.add_column(column)
    for row in rows:
        holds = {True: "yes", False: "[red]no[/red]", None: ""}[row.holds]
        table.add_row(row.name, row.ours, row.peer, row.ratio, row.goal, holds)
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
