"""What people are shown of a library's volumes: made from the counts that are kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from dittohead.contract.source import Counts, Panel
from dittohead.sources.grin import options as words
from dittohead.sources.grin.options import VOLUME, GrinOptions

_AT_GRIN = (
    (words.KNOWN, "in the list of all books"),
    (words.AVAILABLE, "may be asked for"),
    (words.PREVIOUS, "converted once, not in the pool now"),
    (words.REQUESTED, "asked for"),
    (words.IN_PROCESS, "in process"),
    (words.CONVERTED, "converted, in the pool"),
    (words.FAILED, "could not be converted"),
    (words.UNAVAILABLE, "not given out"),
    (words.GONE, "in no list any more"),
)

_HERE = (
    (words.WANTED, "wanted"),
    (words.FETCHING, "on their way"),
    (words.BROKEN, "failed here"),
    (words.STORED, "stored"),
    (words.ASIDE, "set aside"),
)


def of(options: GrinOptions, counts: Counts) -> Sequence[Panel]:
    """Return where the volumes are, at GRIN and here."""
    found = counts.get(VOLUME, {})
    states: Counter[str] = Counter()
    stages: Counter[str] = Counter()
    for (state, stage), count in found.items():
        states[state] += count
        stages[stage] += count
    if not found:
        return ()
    busy = states[words.REQUESTED] + states[words.IN_PROCESS]
    queue = ("of GRIN's queue in use", f"{busy:,} of {options.in_process:,}")
    return (
        Panel(title="At GRIN", rows=(*_lines(states, _AT_GRIN), queue)),
        Panel(title="Here", rows=_lines(stages, _HERE)),
    )


def _lines(counts: Counter[str], said: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple((label, f"{counts[word]:,}") for word, label in said if counts[word])
