"""What a token says: where its entry stands, why it does not go on, and all that became of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from dittohead.contract.board import FIELDS, Board
from dittohead.contract.catalogue import Change
from dittohead.intake.board.stages import Stand
from dittohead.model.states import StepState
from dittohead.model.text import rfc3339
from dittohead.store.board import Standing

#: Lines of history in a token; the latest.
HISTORY = 100


def text(
    source: str, board: Board, found: Standing, at: Stand, changes: Sequence[Change], known: Mapping[str, str]
) -> str:
    """Return a token as it is written.

    Args:
        source: the source's name.
        board: the source's words.
        found: the entry, with its job.
        at: where it is shown.
        changes: the changes of the entry, the oldest first.
        known: the fields that its tokens may have, with their values by default.
    """
    entry = found.entry
    given = entry.attributes.get(FIELDS)
    fields = {name: given[name] for name in known if name in given} if isinstance(given, dict) else {}
    history = story(found, changes, at.words)
    said: dict[str, Any] = {
        board.key: entry.key,
        "source": source,
        "stage": at.stage,
        "since": history[-1]["at"] if history else moment(entry.first_at),
        "state": entry.state,
        "here": entry.stage,
        **({"priority": entry.priority} if entry.priority else {}),
        **({"job": found.job, "job_state": found.job_state} if found.job else {}),
        **({"reason": at.failed} if at.failed else {}),
        **fields,
        "history": history,
    }
    return json.dumps(said, ensure_ascii=False, indent=1) + "\n"


def story(found: Standing, changes: Sequence[Change], words: Sequence[str]) -> list[dict[str, Any]]:
    """Return what became of an entry and its steps, the oldest first."""
    lines = [
        {
            "at": moment(one.at),
            "what": one.state + (f", {one.stage}" if one.stage else ""),
            **({"reason": one.reason} if one.reason else {}),
            "by": one.by,
        }
        for one in changes
    ]
    lines += [
        {"at": moment(step.finished_at), "what": word, "by": f"job {found.job}, step {step.name}"}
        for step, word in zip(found.steps, words, strict=False)
        if step.state is StepState.DONE and step.finished_at is not None
    ]
    return sorted(lines, key=lambda line: str(line["at"]))[-HISTORY:]


def moment(at: float) -> str:
    """Return a moment as it is written."""
    return rfc3339(datetime.fromtimestamp(at, UTC)) or ""


def reason(name: str, what: str, why: str, todo: str) -> str:
    """Return what is written beside a token that does not go on.

    Args:
        name: of the token, or of the file.
        what: is said about it, after its name.
        why: it is so.
        todo: what to do next.
    """
    return f"{name} {what}.\n\nWhat:   {why}\nDo:     {todo}\n"
