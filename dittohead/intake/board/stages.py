"""Which stage of the board each entry stands in: by its state upstream, then by the steps of its job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from dittohead.config.loader import Pipeline
from dittohead.config.registry import Registry
from dittohead.contract.board import DOWNLOADED, HOLD, Board
from dittohead.model.states import DropState, JobState, StepState
from dittohead.store.board import Standing, StepAt, is_failed

#: The last stage, whatever the last step is called.
STORED = "stored"


@dataclass(frozen=True, kw_only=True, slots=True)
class Stand:
    """Where an entry is shown."""

    stage: str
    failed: str = ""  #: why it does not go on; "" while it does
    words: tuple[str, ...] = ()  #: the stage after each step of its job


def words(steps: Sequence[StepAt], workers: Registry, board: Board) -> tuple[str, ...]:
    """Return what a folder is called after each step.

    Steps that follow each other may share a word: then it is reached when all of them are done. A word that
    comes again later is the later ones' own; before, the steps go by their names.
    """
    given = [_word(step, workers) for step in steps]
    taken = {*board.columns, HOLD, DOWNLOADED}
    found: list[str] = []
    for word, run in groupby(range(len(given)), key=given.__getitem__):
        numbers = list(run)
        alone = word in given[numbers[-1] + 1 :]
        found += [steps[number].name if alone else word for number in numbers]
    return tuple(f"step-{word}" if word in taken else word for word in found)


def _word(step: StepAt, workers: Registry) -> str:
    try:
        return workers.get(step.worker).stage(step.options) or step.name
    except Exception:  # noqa: BLE001  # a site's own, which may be gone: its step has a name all the same
        return step.name


def reached(names: Sequence[str], steps: Sequence[StepAt]) -> str:
    """Return the last stage all of whose steps are done, and all before them."""
    done = 0
    while done < len(steps) and steps[done].state is StepState.DONE:
        done += 1
    while 0 < done < len(names) and names[done] == names[done - 1]:
        done -= 1
    return names[done - 1] if done else DOWNLOADED


def stand(found: Standing, board: Board, stored: str, workers: Registry) -> Stand | None:
    """Return where an entry is shown; None where it is not on its way.

    Args:
        found: the entry, with its folder and its job.
        board: the source's words.
        stored: its word for what is stored.
        workers: of the job's steps.
    """
    entry, names = found.entry, words(found.steps, workers, board)
    if entry.stage == HOLD:
        return Stand(stage=HOLD, words=names)
    if entry.stage in (board.wanted, board.aside):
        failed = (entry.reason or "given up") if entry.stage == board.aside else ""
        return Stand(stage=board.column(entry.state), failed=failed, words=names)
    if entry.stage not in (board.fetching, board.failed, stored):
        return None
    if found.drop is DropState.DONE and found.job_state is JobState.DONE:
        return Stand(stage=STORED, words=names) if entry.stage == stored else _by_job(found, names)
    if entry.stage == stored and found.drop is None:
        return None
    if found.drop in (None, DropState.FETCHING, DropState.VOID):
        failed = entry.reason if entry.stage == board.failed else ""
        return Stand(stage=board.column(entry.state), failed=failed, words=names)
    return _by_job(found, names)


def _by_job(found: Standing, names: tuple[str, ...]) -> Stand:
    if found.job_state is JobState.FROZEN:
        return Stand(stage=HOLD, words=names)
    failed = (found.reason or "its job failed") if is_failed(found.job_state, found.drop) else ""
    return Stand(stage=reached(names, found.steps), failed=failed, words=names)


def row(board: Board, pipeline: Pipeline | None, workers: Registry) -> tuple[str, ...]:
    """Return all stages in order, for folders of one pipeline; `hold` is none of them."""
    steps = pipeline.steps if pipeline is not None else ()
    at = [
        StepAt(
            name=step.name,
            worker=step.worker,
            options=step.options,
            state=StepState.PENDING,
            finished_at=None,
        )
        for step in steps
    ]
    return tuple(dict.fromkeys([*board.columns, DOWNLOADED, *words(at, workers, board), STORED]))
