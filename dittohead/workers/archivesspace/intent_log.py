"""What a step is about to create or change in ArchivesSpace: JSON lines, durable before it is sent.

A line says what was meant, not that it was done. Whether it was is seen in ArchivesSpace itself, when
the step goes on after a crash and when it is undone: what is there is ours if it is what we meant.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dittohead.toolkit import intent_log
from dittohead.toolkit.intent_log import IntentLog


class RecordIntentLog:
    """The notes of one step of one job. Blocking."""

    def __init__(self, path: Path, head: dict[str, Any]) -> None:
        self._notes = IntentLog(path, head)

    def note(self, **fields: Any) -> None:
        """Keep a line durably. Raises: OSError, TargetError: it is not kept."""
        self._notes.write([fields], durable=True)

    def close(self) -> None:
        """Finish."""
        self._notes.close()


def read(path: Path) -> list[dict[str, Any]]:
    """Return the lines about what was meant, in their order; [] when there is no intent log. Blocking.

    What the server has refused for certain is left out.
    """
    found: list[dict[str, Any]] = []
    for line in intent_log.read(path):
        if line.get("do") == "void":
            names = ("archival_object", "uri", "of")
            at = [i for i, one in enumerate(found) if line["uri"] in map(one.get, names)]
            if at:
                del found[at[-1]]
        elif "worker" not in line:
            found.append(line)
    return found


def of_other_jobs(path: Path, head: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what all jobs have noted that recorded some of the same objects. Blocking.

    Args:
        path: this step's intent log; the others lie beside it.
        head: this step's first line; another's has the same site and some of the objects.
    """
    if not path.parent.is_dir():
        return
    objects = set(head["objects"])
    for other in sorted(path.parent.glob("*.jsonl")):
        # Not the first line by its place: a crash may have left a half one there.
        first = next((line for line in intent_log.read(other) if "worker" in line), {})
        same = all(first.get(key) == head[key] for key in ("worker", "url", "repository"))
        if same and not objects.isdisjoint(first.get("objects", ())):
            yield from read(other)
