"""What helps an ended job: the buttons in the order in which they help, the main one first."""

from __future__ import annotations

from dittohead.model.records import Job
from dittohead.model.states import JobState, Outcome

#: Steps that do the same with the same files: what they find wrong with a folder they find again.
_REPEATING = frozenset({"convert"})


def cures(job: Job, *, undone: bool = False) -> list[str]:
    """Return what can be asked for an ended job: retry, rerun, rename, replace, dismiss.

    Where trying again can only fail, it is not there, or not first.

    Args:
        undone: what the job had created outside was taken back.
    """
    if job.state is JobState.DONE:
        return ["rerun"]
    if job.state is not JobState.FAILED:
        return []
    kind, files = (job.error.kind, job.error.files) if job.error is not None else ("", ())
    if job.definition.refusal is not None:
        found = ["rerun", "rename"] if job.pipeline else ["rename", "rerun"]
    elif undone or kind == "changed":
        found = ["rerun"]
    elif kind == "item" and files:
        found = ["replace", "rerun", "retry"]
    elif kind == "item" and _failed_worker(job) in _REPEATING:
        found = ["rerun", "retry"]
    else:
        found = ["retry", "rerun"]
    return found if job.outcome is Outcome.DISMISSED else [*found, "dismiss"]


def _failed_worker(job: Job) -> str:
    """Return the worker of the step that failed; "" where it was none."""
    step = job.definition.step(job.error.step) if job.error is not None else None
    return step.worker if step is not None else ""
