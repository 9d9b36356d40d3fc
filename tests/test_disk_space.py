"""Room on a disk: one rule for what fits beside what is to stay free."""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dittohead
from dittohead.system import disk_space

sizes = st.integers(0, 1 << 60)


@given(sizes, sizes, sizes)
def test_something_fits_exactly_when_nothing_is_lacking(free: int, needed: int, floor: int) -> None:
    """What is to stay free is free afterwards; a byte more does not fit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=free, f_frsize=1))
        lacking = disk_space.lacking("/", needed, floor)
        assert (lacking <= 0) == (free - needed >= floor)
        assert disk_space.lacking("/", needed - lacking, floor) == 0
        assert 0 <= free - disk_space.in_steps(free) < 1 << 24


def test_roots_reserve_and_a_disks_size_are_told_apart(tmp_path: Path) -> None:
    """As df tells them, in bytes."""
    status = os.statvfs(tmp_path)
    assert disk_space.capacity(tmp_path) == status.f_blocks * status.f_frsize
    assert abs(disk_space.free(tmp_path) - status.f_bavail * status.f_frsize) < 1 << 30
    share, size = disk_space.used(tmp_path)
    assert size == disk_space.capacity(tmp_path)
    assert abs(share * size - (size - disk_space.free(tmp_path))) < 1 << 30


def test_nobody_else_counts_free_bytes() -> None:
    """So that a disk is never full for one part of the program and not for another."""
    package = Path(dittohead.__file__).parent
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if re.search(r"\.f_bavail", path.read_text())
    }
    assert found == {"system/disk_space.py"}
