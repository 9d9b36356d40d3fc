"""Lists of jobs on a terminal of 80 columns, on a wide one, and where a program reads them."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

import dittohead
from dittohead.cli import lines, terminal
from dittohead.cli.lines import ListLine
from dittohead.model.units import age, duration, size

LONG = ListLine(
    state="failed",
    name="a-very-long-name-of-a-folder-that-nobody-would-read-to-its-end-2026-11-29",
    pipeline="preservation-and-access",
    at=0.0,
    clause="the image is truncated: " + "x" * 200,
    id="01J0000000000000000000JOB1",
)
SHORT = ListLine(state="done", name="lab1-x", pipeline="scans", at=0.0, clause="done: 3 files", id="01J2")


def shown(*found: ListLine, width: int, terminal: bool = True) -> list[str]:
    to = Console(file=StringIO(), width=width, force_terminal=terminal, highlight=False, no_color=True)
    lines.show(found, to, indent=2)
    text = re.sub(r"\x1b\[[0-9;]*m", "", to.file.getvalue())  # type: ignore[attr-defined]
    return text.splitlines()


@pytest.mark.parametrize("width", [40, 60, 80, 119, 120, 200])
def test_each_job_takes_one_row_of_a_terminal(width: int) -> None:
    """However long names, pipelines and reasons are."""
    found = shown(LONG, SHORT, width=width)
    assert len(found) == 2
    assert all(cell_len(line) <= width for line in found)
    assert "lab1-x" in found[1]


def test_at_80_columns_there_is_room_for_the_reason() -> None:
    """A long name is cut, and does not cut everybody's clause away."""
    long, short = shown(LONG, SHORT, width=80)
    assert "the image is truncated" in long
    assert "01J" not in long
    assert short.startswith("  ✓ lab1-x ")
    assert short.endswith("  done: 3 files")


def test_a_wide_terminal_also_shows_the_id() -> None:
    assert "01J0000000000000000000JOB1" in shown(LONG, width=140)[0]


def test_nothing_is_cut_where_a_program_reads() -> None:
    """Ids and states are written out; a long name pads nobody else's line."""
    long, short = shown(LONG, SHORT, width=80, terminal=False)
    assert LONG.clause in long
    assert LONG.name in long
    assert re.match(r"  01J0000000000000000000JOB1  failed +a-very", long)
    assert re.match(r"  01J2  done +lab1-x +scans  [\d,]+ d  done: 3 files$", short)
    assert len(short) < 90


def test_wide_and_hostile_characters_keep_the_columns() -> None:
    """Two cells for a CJK character; an escape sequence is shown, never sent to the terminal."""
    name = "標本-\x1b[31m-" + "標" * 40
    (line,) = shown(ListLine(state="held", name=name, clause="[bold]why[/bold]"), width=80)
    assert cell_len(line) <= 80
    assert "\\x1b" in line
    assert line.endswith("[bold]why[/bold]")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "now"), (42, "42 s"), (200, "3 min"), (5 * 3600, "5 h"), (86400 * 12, "12 d"), (244e6, "2,824 d")],
)
def test_ages_are_in_one_unit(seconds: float, words: str) -> None:
    assert age(seconds) == words


def test_sizes_and_durations_are_said_the_same_everywhere() -> None:
    """1,024 bytes are a KiB on the page, in mails and on the command line."""
    assert [size(n) for n in (0, 1, 1023, 1024, 56_700_000, 1 << 40)] == [
        "0 bytes",
        "1 byte",
        "1,023 bytes",
        "1.0 KiB",
        "54.1 MiB",
        "1.0 TiB",
    ]
    assert [duration(n) for n in (0.21, 4.2, 200, 3600, 187200)] == [
        "210 ms",
        "4.2 s",
        "3 min 20 s",
        "1 h",
        "2 d 4 h",
    ]


def test_a_name_between_colons_is_no_picture() -> None:
    """Rich puts emoji in the place of `:x:`, which stands in URNs, times and names."""
    for console in (terminal.out, terminal.err):
        with console.capture() as said:
            console.print(terminal.escape("urn:x:1 a:+1:b :warning: 12:on:30"))
        assert said.get() == "urn:x:1 a:+1:b :warning: 12:on:30\n"
    for path in Path(dittohead.__file__).parent.rglob("*.py"):
        for call in re.findall(r"\bConsole\(([^()]*(?:\([^()]*\)[^()]*)*)\)", path.read_text()):
            assert not call or "emoji=False" in call, path
