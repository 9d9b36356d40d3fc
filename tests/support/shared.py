"""Data of others, which is not part of the project: at `shared/data` of a directory above, where it is."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).resolve()


def shared(name: str) -> Path:
    """Return where a file of theirs lies, or would lie: ask `exists()`."""
    places = [parent / "shared/data" / name for parent in _HERE.parents[3:]]
    return next((place for place in places if place.exists()), places[0])
