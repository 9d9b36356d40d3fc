"""What the form says of a name: who would take it, whether it was done before, and which like it is free."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from dittohead.config.loader import Config
from dittohead.model.errors import ItemError
from dittohead.model.records import Job
from dittohead.model.states import JobState
from dittohead.store import Connection, history
from dittohead.web.uploads.receive import Reception, fitting

#: Numbers that are tried behind a name, and what joins them to it.
_NUMBERS, _JOINTS = range(2, 30), ("-", "_", ".")

_WAS = {JobState.DONE: "was done before", JobState.FAILED: "failed before"}


@dataclass(frozen=True, kw_only=True)
class NameHistory:
    """What the store knows of a name."""

    job: Job | None  #: the latest of this name
    taken: frozenset[str]  #: of the names like it, those that jobs had


def known(connection: Connection, name: str, candidates: Collection[str]) -> NameHistory:
    """Ask the store."""
    job = next(iter(history.of_name(connection, name)), None)
    return NameHistory(job=job, taken=history.taken_names(connection, candidates))


def like(config: Config, name: str) -> list[str]:
    """Return names with a number behind them that mean the same: same pipeline, same named groups.

    A number within a group could make it another object's name.
    """
    try:
        found = config.pipeline_for(name)
        tries = (f"{name}{joint}{number}" for joint in _JOINTS for number in _NUMBERS)
        return [other for other in tries if config.pipeline_for(other) == found] if found else []
    except ItemError:  # a pattern takes too long over it; the refusal says so
        return []


def told(
    config: Config, reception: Reception, name: str, before: NameHistory, candidates: Collection[str]
) -> dict[str, Any]:
    """Return what a person is shown of a name that they are about to use. Blocking.

    Args:
        config: the current configuration.
        reception: where uploads go; it knows which names are free.
        name: the folder's name.
        before: what the store knows of the name and of the candidates.
        candidates: names like it, in the order in which they are offered.

    Returns: ok, what and hint of a refusal or pipeline, steps, purposes; known: the earlier job, and what
    became of it; free: a name like it that nobody has had, "" for none.
    """
    said: dict[str, Any] = {"known": None, "free": ""}
    try:
        pipeline = fitting(config, name, ())
        reception.check_free(name)
    except ItemError as error:
        said |= {"ok": False, "what": error.what, "hint": error.hint}
    else:
        steps, purposes = [step.name for step in pipeline.steps], sorted(pipeline.purposes)
        said |= {"ok": True, "pipeline": pipeline.name, "steps": steps, "purposes": purposes}
    if before.job is not None:
        said["known"] = _known(before.job)
    if before.job is not None or not reception.is_free(name):
        free = (other for other in candidates if other not in before.taken and reception.is_free(other))
        said["free"] = next(free, "")
    return said


def _known(job: Job) -> Mapping[str, Any]:
    became = _WAS.get(job.state, "is being processed")
    return {"job": job.id, "said": f"A folder of this name {became}", "at": job.finished_at or job.claimed_at}
