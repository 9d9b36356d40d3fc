"""What is promised on disks under the root: never less than nothing, and forgotten when its owner has ended."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dittohead
from dittohead.engine import disks
from dittohead.engine.disk_budget import DiskBudget, Need
from dittohead.engine.disks import Disks
from dittohead.folders.stations import Stations
from dittohead.system import disk_space

needs = st.builds(Need, folder=st.integers(0, 1000), work=st.integers(0, 1000))
deeds = st.lists(st.tuples(st.sampled_from(["reserve", "written", "release"]), st.sampled_from("abc"), needs))

ROOT = Path("/r")


def budget_of(patch: pytest.MonkeyPatch, free: dict[str, int], floor: int = 0) -> DiskBudget:
    """Return the budget of a root on so many file systems, each by its highest directory: "" is the root."""

    def of(place: Path | str | bytes) -> str:
        name = Path(str(place)).relative_to(ROOT).as_posix()
        return name if name in free else ""

    patch.setattr(disks, "_device", lambda place: sorted(free).index(of(place)))
    patch.setattr(disk_space, "free", lambda place: free[of(place)])
    patch.setattr(disk_space, "capacity", lambda place: 1 << 30)
    return DiskBudget(Disks(Stations(ROOT), lambda: floor))


@given(deeds, st.integers(0, 4000), st.integers(0, 1000), needs)
def test_what_is_promised_is_what_was_reserved_and_is_not_written(
    done: list[tuple[str, str, Need]], free: int, floor: int, needed: Need
) -> None:
    """In any order of deeds; what fits beside it goes by that and by the floor."""
    with pytest.MonkeyPatch.context() as patch:
        budget, wanted = budget_of(patch, {"": free}, floor), dict[str, Need]()
        for deed, who, need in done:
            if deed == "reserve":
                budget.reserve(who, need)
                wanted[who] = need
            elif deed == "written":
                budget.written(who, need.folder)
                if who in wanted:
                    left = max(0, wanted[who].folder - need.folder)
                    wanted[who] = Need(folder=left, work=wanted[who].work)
            else:
                budget.release(who)
                wanted.pop(who, None)
        promised = sum(need.folder + need.work for need in wanted.values())
        assert budget.promised.folder + budget.promised.work == promised
        assert budget.is_promised == bool(wanted)
        lack = budget.lacking(needed)
        missing = needed.folder + needed.work + promised + floor - free
        assert (lack.size if lack is not None else 0) == max(missing, 0)
        assert budget.is_full == (free < floor)


@given(st.integers(0, 3000), st.integers(0, 3000), needs, needs)
def test_each_file_system_takes_its_own_part(root: int, work: int, promised: Need, needed: Need) -> None:
    """Where work/ lies apart, what steps make needs space there, and folders where the stations are."""
    with pytest.MonkeyPatch.context() as patch:
        budget = budget_of(patch, {"": root, "work": work})
        budget.reserve("a", promised)
        missing = {
            ROOT: needed.folder + promised.folder - root,
            ROOT / "work": needed.work + promised.work - work,
        }
        lack = budget.lacking(needed)
        if lack is None:
            assert max(missing.values()) <= 0
        else:
            assert lack.size == max(missing.values()) == missing[lack.disk.place]


def test_a_small_file_system_of_its_own_keeps_a_tenth_free() -> None:
    """Else the default of the floor would let nothing be done where receipts/ has a few hundred megabytes."""
    with pytest.MonkeyPatch.context() as patch:
        budget = budget_of(patch, {"": 5 << 30, "receipts": 110 << 20}, floor=4 << 30)
        assert not budget.is_full
        budget = budget_of(patch, {"": 5 << 30, "receipts": 100 << 20}, floor=4 << 30)
        lack = budget.lacking(Need())
        assert budget.is_full
        assert lack is not None
        assert lack.disk.place == ROOT / "receipts"


@given(needs, st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_what_is_promised_to_a_whole_is_shared_among_its_parts(needed: Need, lots: list[int]) -> None:
    """Some at a time: nothing is promised twice, and but for a remainder nothing is lost."""
    budget, left = DiskBudget(Disks(Stations(ROOT), lambda: 0)), sum(lots)
    budget.reserve("whole", needed)
    for number, count in enumerate(lots):
        budget.share("whole", [f"{number}-{each}" for each in range(count)], left)
        left -= count
        assert budget.promised == needed
    budget.release("whole")
    assert needed.folder - budget.promised.folder < sum(lots)
    assert needed.work - budget.promised.work < sum(lots)


def test_nobody_else_keeps_or_changes_what_is_promised() -> None:
    """Jobs and sources ask the budget."""
    own = re.compile(r"\breserved\b\s*(\[|:|\.)|\._promised")
    package = Path(dittohead.__file__).parent
    found = [path.name for path in package.rglob("*.py") if own.search(path.read_text())]
    assert sorted(found) == ["disk_budget.py", "shown.py"]  # the second: the field of an answer
