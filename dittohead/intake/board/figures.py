"""The board in numbers: how many stand in each stage, how fast they come, when the last of them is stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dittohead.config.registry import Registry
from dittohead.contract.board import HOLD, Board
from dittohead.intake.board import stages
from dittohead.intake.board.keeper import FLOW
from dittohead.intake.board.stages import STORED, Stand
from dittohead.store import Connection
from dittohead.store import board as board_store
from dittohead.store import catalogue as catalogue_store
from dittohead.store.board import Standing
from dittohead.store.catalogue import HOUR_S

#: A rate that is this old counts half. Hours.
_HALF = 24.0

#: Folders under way, and failures, that are read one by one.
_FOLDERS = 1_000

#: Entries that were given up of which the reasons are read; how many there are is known of all.
_ASIDE = 500

#: Names shown of one stage, and of one reason.
_NAMED = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class StageFigures:
    """One stage."""

    name: str
    count: int
    failed: int  #: of these, those that do not go on
    came: int  #: in the last 24 hours
    keys: tuple[str, ...]  #: some of those that stand there


@dataclass(frozen=True, kw_only=True, slots=True)
class Reason:
    """Why some do not go on."""

    why: str
    count: int
    keys: tuple[str, ...]
    jobs: tuple[str, ...]  #: ids of their jobs; () where they have none


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """The whole board."""

    stages: tuple[StageFigures, ...]
    left: int  #: on their way, and not stored yet
    per_day: float  #: stored in a day, smoothed
    left_s: float | None  #: until all are stored, at that rate; None where nothing is stored now
    reasons: tuple[Reason, ...]
    aside: int  #: how many were given up
    read: int  #: of these, how many reasons were read


def gather(
    connection: Connection,
    name: str,
    kind: str,
    stored: str,
    board: Board,
    row: Sequence[str],
    workers: Registry,
    now: float,
) -> Figures:
    """Ask the store, in one transaction; quick at a million entries.

    Args:
        connection: of the transaction.
        name: the source's name.
        kind: the kind of entry.
        stored: the source's word for what is stored.
        board: its words for the others.
        row: the stages in order.
        workers: of the jobs' steps.
        now: seconds since the epoch.
    """
    counts = catalogue_store.counts(connection, name, kind)
    flows = catalogue_store.flows(connection, name, kind, now - 7 * 86_400)
    passed = catalogue_store.flows(connection, name, FLOW, now - 86_400)
    placed = [
        (one, at)
        for one in board_store.with_folders(connection, name, kind, _FOLDERS)
        if (at := stages.stand(one, board, stored, workers)) is not None and at.stage not in board.columns
    ]
    here, failed, keys = _standing(counts, placed, board, stored)
    for column in board.columns:
        keys[column] = _some(connection, name, kind, board, column, counts)
    came = _came(flows, passed, board, stored, now)
    names = dict.fromkeys([*row, *(stage for stage in here if stage != HOLD), HOLD])
    per_day = 24 * smoothed(_hours(flows, stored), now)
    left = sum(count for (_, stage), count in counts.items() if stage in (board.wanted, board.fetching))
    left -= sum(1 for _, at in placed if at.failed)
    reasons, aside, read = _reasons(connection, name, kind, board, counts, placed)
    return Figures(
        stages=tuple(
            StageFigures(
                name=stage,
                count=here[stage],
                failed=failed[stage],
                came=came[stage],
                keys=tuple(keys.get(stage, [])[:_NAMED]),
            )
            for stage in names
        ),
        left=max(left, 0),
        per_day=per_day,
        left_s=86_400 * left / per_day if per_day > 0 and left > 0 else None,
        reasons=reasons,
        aside=aside,
        read=read,
    )


def _standing(
    counts: Mapping[tuple[str, str], int],
    placed: Sequence[tuple[Standing, Stand]],
    board: Board,
    stored: str,
) -> tuple[Counter[str], Counter[str], dict[str, list[str]]]:
    """Return how many stand in each stage, how many of them are stuck, and the keys of those with a job."""
    here: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    keys: dict[str, list[str]] = {}
    for (state, stage), count in counts.items():
        if stage == HOLD:
            here[HOLD] += count
        elif stage in (board.wanted, board.fetching, board.failed, board.aside):
            here[board.column(state)] += count
            failed[board.column(state)] += count if stage == board.aside else 0
        elif stage == stored:
            here[STORED] += count
    for one, at in placed:
        if one.entry.stage in (board.fetching, board.failed):  # counted among those upstream
            here[board.column(one.entry.state)] -= 1
        if one.entry.stage != HOLD:
            here[at.stage] += 1
        failed[at.stage] += bool(at.failed)
        keys.setdefault(at.stage, []).append(one.entry.key)
    return here, failed, keys


def _some(
    connection: Connection,
    name: str,
    kind: str,
    board: Board,
    column: str,
    counts: Mapping[tuple[str, str], int],
) -> list[str]:
    """Return keys of some entries that stand in a stage before the fetch."""
    states = [state for state, stage in counts if stage == board.wanted and board.column(state) == column]
    found = catalogue_store.pick(connection, name, kind, states, [board.wanted], _NAMED)
    return [entry.key for entry in found]


def _came(
    flows: Mapping[tuple[str, str], Mapping[int, int]],
    passed: Mapping[tuple[str, str], Mapping[int, int]],
    board: Board,
    stored: str,
    now: float,
) -> Counter[str]:
    """Return how many came to each stage in the last 24 hours."""
    since = int((now - 86_400) // HOUR_S)
    came: Counter[str] = Counter()
    for (state, stage), hours in flows.items():
        count = sum(number for hour, number in hours.items() if hour >= since)
        if stage == board.wanted:
            # A stage with two states is passed through both of them: each is counted once.
            came[board.column(state)] = max(came[board.column(state)], count)
        elif stage == stored:
            came[STORED] += count
    for (stage, _), hours in passed.items():
        if stage != STORED:
            came[stage] += sum(number for hour, number in hours.items() if hour >= since)
    return came


def _hours(flows: Mapping[tuple[str, str], Mapping[int, int]], stored: str) -> Counter[int]:
    found: Counter[int] = Counter()
    for (_, stage), hours in flows.items():
        if stage == stored:
            found.update(hours)
    return found


def smoothed(hours: Mapping[int, int], now: float) -> float:
    """Return how many come in an hour: a mean in which an hour counts half as much a day later.

    Args:
        hours: hour since the epoch -> how many came in it.
        now: seconds since the epoch; the hour that it lies in counts as far as it has gone.
    """
    if not hours:
        return 0.0
    current = int(now // HOUR_S)
    total = weight = 0.0
    for hour in range(min(hours), current + 1):
        whole = (now - current * HOUR_S) / HOUR_S if hour == current else 1.0
        counts = 0.5 ** ((current - hour) / _HALF)
        total += counts * hours.get(hour, 0)
        weight += counts * whole
    return total / max(weight, 1.0)


def _reasons(
    connection: Connection,
    name: str,
    kind: str,
    board: Board,
    counts: Mapping[tuple[str, str], int],
    placed: Sequence[tuple[Standing, Stand]],
) -> tuple[tuple[Reason, ...], int, int]:
    """Return reasons with how many have them, the most first; how many were given up, and were read."""
    by: dict[tuple[str, bool], list[tuple[str, str]]] = {}
    for one, at in placed:
        if at.failed:
            by.setdefault((at.failed, bool(one.job)), []).append((one.entry.key, one.job))
    states = [state for state, stage in counts if stage == board.aside]
    aside = catalogue_store.pick(connection, name, kind, states, [board.aside], _ASIDE)
    for entry in aside:
        by.setdefault((entry.reason or "given up", False), []).append((entry.key, ""))
    found = [
        Reason(
            why=why,
            count=len(some),
            keys=tuple(key for key, _ in some),
            jobs=tuple(job for _, job in some if job),
        )
        for (why, _), some in by.items()
    ]
    found.sort(key=lambda one: (-one.count, one.why))
    whole = sum(count for (_, stage), count in counts.items() if stage == board.aside)
    return tuple(found), whole, len(aside)
