"""What is promised on the root's disk: never less than nothing, and forgotten when its owner has ended."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dittohead
from dittohead.engine.disk_budget import DiskBudget
from dittohead.system import disk_space

deeds = st.lists(
    st.tuples(st.sampled_from(["reserve", "written", "release"]), st.sampled_from("abc"), st.integers(0, 100))
)


@given(deeds, st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 1000))
def test_what_is_promised_is_what_was_reserved_and_is_not_written(
    done: list[tuple[str, str, int]], free: int, floor: int, needed: int
) -> None:
    """In any order of deeds; what fits beside it goes by that and by the floor."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk_space, "free", lambda path: free)
        budget, wanted = DiskBudget(Path("/"), lambda: floor), dict[str, int]()
        for deed, who, size in done:
            if deed == "reserve":
                budget.reserve(who, size)
                wanted[who] = size
            elif deed == "written":
                budget.written(who, size)
                if who in wanted:
                    wanted[who] = max(0, wanted[who] - size)
            else:
                budget.release(who)
                wanted.pop(who, None)
        assert budget.promised == sum(wanted.values()) >= 0
        assert budget.is_promised == bool(wanted)
        assert budget.lacking(needed) == needed + sum(wanted.values()) + floor - free
        assert budget.is_full == (free < floor)


@given(st.integers(0, 10_000), st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_what_is_promised_to_a_whole_is_shared_among_its_parts(needed: int, lots: list[int]) -> None:
    """Some at a time: nothing is promised twice, and but for a remainder nothing is lost."""
    budget, left = DiskBudget(Path("/"), lambda: 0), sum(lots)
    budget.reserve("whole", needed)
    for number, count in enumerate(lots):
        budget.share("whole", [f"{number}-{each}" for each in range(count)], left)
        left -= count
        assert budget.promised == needed
    budget.release("whole")
    assert needed - budget.promised < sum(lots)


def test_nobody_else_keeps_or_changes_what_is_promised() -> None:
    """Jobs and sources ask the budget."""
    own = re.compile(r"\breserved\b\s*(\[|:|\.)|\._promised")
    package = Path(dittohead.__file__).parent
    assert [path.name for path in package.rglob("*.py") if own.search(path.read_text())] == ["disk_budget.py"]
