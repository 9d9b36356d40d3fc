"""The board of a source that keeps a catalogue: where each entry stands that is on its way, in words.

A board is a row of stages. The source says what its entries go through before their folder is fetched; the
engine adds `downloaded`, then a stage for each step of the pipeline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: The stage of entries that a person holds: no source picks them, and none of their folders is fetched.
HOLD = "hold"

#: Where an entry is whose folder lies in the inbox, or whose job has done no step yet.
DOWNLOADED = "downloaded"

#: The attribute of an entry with the stage that it had before it was held.
HELD = "held_stage"

#: The attribute of an entry with the fields of the token that asked for it.
FIELDS = "fields"

#: What a token holds that is the board's own.
OWN_FIELDS = frozenset(
    {"key", "source", "stage", "since", "state", "here", "job", "job_state", "reason", "priority", "history"}
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Board:
    """How a source's entries stand on its board.

    Args:
        columns: the stages before the folder is fetched, in order, each with the states of entries that
            stand there. An entry in any other state stands in the first.
        key: what tokens call an entry's key, such as "barcode".
        wanted: the stage of entries that somebody wants.
        fetching: the stage of entries that the engine has.
        failed: the stage of those whose jobs have failed: the engine moves an entry from one to the
            other and back, with the reason.
        aside: the stage of entries that were given up, with the reason.
    """

    columns: Mapping[str, frozenset[str]]
    key: str = "key"
    wanted: str = "wanted"
    fetching: str = "fetching"
    failed: str = "failed"
    aside: str = "set_aside"

    def column(self, state: str) -> str:
        """Return the stage before the fetch that entries in a state stand in."""
        first = next(iter(self.columns))
        return next((name for name, states in self.columns.items() if state in states), first)
