"""How much of what is slow by nature is run: a budget in `make test`, the rest in `make test-rest`, more by hand.

`TESTS_PART=first` leaves out what is marked `rest`, and lets Hypothesis try fewer examples. `TESTS_PART=rest` runs what
is marked so, and every test of Hypothesis's with all its examples. Without it all is run, once.
`LONG_TESTS=1` is for hours of trying by hand.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pytest

LONG = bool(os.environ.get("LONG_TESTS"))

PART = os.environ.get("TESTS_PART", "")

#: Hypothesis's own default is 100.
EXAMPLES = 25 if PART == "first" else 100

#: Where files begin that take long, in the order in which they are begun: what is short fills up the end.
ORDER = (
    "tests/crash/",
    "tests/real/test_boot.py",
    "tests/docs/",
    "tests/real/",
    "tests/workers/",
    "tests/sources/",
    "tests/web/",
)


def outer_environ() -> dict[str, str]:
    """Return this process's environment for tests that tests run: what part of these is run is not theirs."""
    ours = ("TESTS_PART", "TEST_COSTS", "LONG_TESTS", "PYTEST_ADDOPTS")
    return {key: value for key, value in os.environ.items() if key not in ours}


def examples(count: int) -> int:
    """Return how many examples Hypothesis tries in place of `count`."""
    return max(count // 4, 10) if PART == "first" else count


def budget(values: Sequence[Any], *first: Any) -> list[Any]:
    """Return parameters, those that are not among `first` left to the rest."""
    return [
        value if value in first else pytest.param(*_as_tuple(value), marks=pytest.mark.rest)
        for value in values
    ]


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def chosen(items: list[pytest.Item]) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """Return the tests of this part in the order in which they are begun, and those that are left out."""
    kept, left = [], []
    for item in items:
        (kept if _belongs(item) else left).append(item)
    return sorted(kept, key=_place), left


def _belongs(item: pytest.Item) -> bool:
    rest = item.get_closest_marker("rest") is not None
    if PART == "first":
        return not rest
    return PART != "rest" or rest or getattr(getattr(item, "obj", None), "is_hypothesis_test", False)


def _place(item: pytest.Item) -> int:
    return next((n for n, begin in enumerate(ORDER) if item.nodeid.startswith(begin)), len(ORDER))
