"""What people give with a request is read in one place, also from rows of earlier versions."""

from __future__ import annotations

from typing import Any

import pytest

from dittohead.model.request_args import RequestArgs, read_args
from dittohead.store.columns import DamagedJson


def test_arguments_have_the_names_of_the_api() -> None:
    """Three of them are words of Python, or shorter than what they mean."""
    given = {"from": "convert", "with": "0a", "run": False, "bytes": 7, "keys": ["a", 1], "later": "unknown"}
    assert read_args(given) == RequestArgs(step="convert", offer="0a", run=False, size=7, keys=("a", "1"))


@pytest.mark.parametrize(
    "damaged",
    [None, [], "text", DamagedJson(), {"keys": "abc", "args": 1, "ino": "x", "files": "y", "reason": None}],
)
def test_what_nobody_can_have_written_is_as_if_it_was_not_given(damaged: Any) -> None:
    """A request with damaged arguments is refused for what it lacks, and stops nothing else."""
    assert read_args(damaged) == RequestArgs()
