"""One line for each job, folder or target, as wide as the terminal: mark, name, pipeline, age, one clause."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from rich.cells import cell_len, set_cell_size
from rich.console import Console

from dittohead.cli.terminal import escape
from dittohead.model.shown import ShownBatch, ShownJob
from dittohead.model.text import counted, visible
from dittohead.model.units import age, size

#: Each state's mark and colour. A mark says the state also where there is no colour.
_MARKS = {
    "running": ("●", "cyan"),
    "waiting": ("…", "yellow"),
    "paused": ("‖", "yellow"),
    "frozen": ("*", "blue"),
    "done": ("✓", "green"),
    "failed": ("✗", "red"),
    "cancelled": ("-", "bright_black"),
    "dismissed": ("-", "bright_black"),
    "gone": ("-", "bright_black"),
    "held": ("!", "yellow"),
}

#: What became of a failure, said before its reason; that a job was cancelled is its reason.
_AFTERWARDS = {"dismissed": "dismissed", "gone": "its folder is gone"}

#: What is said about a batch's other jobs.
_OF_BATCH: Sequence[tuple[Literal["failed", "settled", "active"], str]] = (
    ("failed", "failed"),
    ("settled", "cancelled or dismissed"),
    ("active", "not over"),
)

#: Cells of a terminal from which on a line begins with the job's id.
_WIDE = 120

#: Cells of a job's id and of a state's word.
_ID, _STATE = 26, 9

#: The shares of a terminal's width that names and pipelines may take, and their least cells.
_NAME_SHARE, _PIPELINE_SHARE = 0.3, 0.12
_NAME_LEAST, _PIPELINE_LEAST = 12, 6

#: Cells of a column of names where lines are not cut.
_COLUMN = 32


@dataclass(frozen=True, kw_only=True)
class ListLine:
    """One line of a list."""

    state: str  #: a job's state, or "held"
    name: str
    clause: str
    pipeline: str = ""
    at: datetime | float | None = None  #: since when
    id: str = ""


def colour(state: str) -> str:
    """Return the colour of a state."""
    return _MARKS[state][1]


def of_batch(batch: ShownBatch) -> ListLine:
    """Return the line of a batch, from its fields."""
    told = [f"{batch['done']:,} of {counted(batch['jobs'], 'folder')} done"]
    told += [f"{batch[kind]:,} {word}" for kind, word in _OF_BATCH if batch[kind]]
    return ListLine(
        state=batch["state"],
        name=batch["name"],
        pipeline=batch["pipeline"],
        at=datetime.fromisoformat(batch["claimed_at"]),
        clause=", ".join(told),
        id=batch["id"],
    )


def of_job(job: ShownJob) -> ListLine:
    """Return the line of a job, from its summary."""
    amount = f"{counted(job['files'], 'file')}, {size(job['bytes'])}"
    since = job["finished_at"] or job["claimed_at"]
    reason = job["reason"].removeprefix(f"{job['name']}: ")
    if job["outcome"] in _AFTERWARDS:
        reason = f"{_AFTERWARDS[job['outcome']]}: {reason}"
    return ListLine(
        state=job["outcome"] or job["state"],
        name=job["name"],
        pipeline=job["pipeline"],
        at=datetime.fromisoformat(since),
        clause=reason or f"{job['state']}: {amount}",
        id=job["id"],
    )


def show(lines: Iterable[ListLine], to: Console, *, indent: int = 0) -> None:
    """Print lines in columns.

    On a terminal each takes one row: names and clauses are cut where they do not fit. Elsewhere nothing
    is cut, and the state is written out, for programs that read lines.

    Args:
        lines: shown in this order.
        to: where they are printed.
        indent: spaces in front of each.
    """
    found = list(lines)
    for text in (_on_terminal if to.is_terminal else _in_full)(found, to, indent):
        to.print(" " * indent + text, no_wrap=True, overflow="ignore", crop=False)


def _on_terminal(lines: list[ListLine], to: Console, indent: int) -> Iterator[str]:
    width = to.width - indent
    wide = width >= _WIDE
    names = _column((line.name for line in lines), width, _NAME_SHARE, _NAME_LEAST)
    pipelines = _column((line.pipeline for line in lines), width, _PIPELINE_SHARE, _PIPELINE_LEAST)
    ages = max((len(_since(line.at)) for line in lines), default=0)
    for line in lines:
        mark, ink = _MARKS[line.state]
        cells = [f"[{ink}]{mark}[/{ink}]", _cut(line.name, names)]
        used = 2 + names + 2
        if wide:
            cells.insert(1, set_cell_size(line.id, _ID))
            used += _ID + 1
        if pipelines:
            cells.append(f"[dim]{_cut(line.pipeline, pipelines)}[/dim]")
            used += pipelines + 1
        if ages:
            cells.append(f"{_since(line.at):>{ages}}")
            used += ages + 1
        yield f"{' '.join(cells)}  {_cut(line.clause, max(width - used, 1), pad=False)}"


def _in_full(lines: list[ListLine], to: Console, indent: int) -> Iterator[str]:
    names = min(max((cell_len(visible(line.name)) for line in lines), default=0), _COLUMN)
    for line in lines:
        name = escape(line.name)
        padding = " " * max(names - cell_len(visible(line.name)), 0)
        id_ = f"{line.id}  " if line.id else ""
        pipeline = f"  {escape(line.pipeline)}" if line.pipeline else ""
        at = f"  {_since(line.at)}" if line.at is not None else ""
        yield f"{id_}{line.state:<{_STATE}}  {name}{padding}{pipeline}{at}  {escape(line.clause)}"


def _column(values: Iterable[str], width: int, share: float, least: int) -> int:
    longest = max((cell_len(visible(value)) for value in values), default=0)
    return min(longest, max(int(width * share), least))


def _cut(text: str, cells: int, *, pad: bool = True) -> str:
    """Return text for a terminal in that many cells; what is cut ends in an ellipsis."""
    shown = visible(text)
    if cell_len(shown) > cells:
        shown = set_cell_size(shown, cells - 1).rstrip() + "…"
    return escape(set_cell_size(shown, cells) if pad else shown)


def _since(at: datetime | float | None) -> str:
    if at is None:
        return ""
    seconds = at.timestamp() if isinstance(at, datetime) else at
    return age(max(time.time() - seconds, 0))
