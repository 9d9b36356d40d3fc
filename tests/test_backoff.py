"""Waits between tries: they grow, have an end, and differ; the same rule for anyone who tries again."""

from __future__ import annotations

import ast
import math
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

import dittohead
from dittohead.toolkit.backoff import FULL, NONE, SOME, spread, wait_s
from dittohead.toolkit.retry_after import MOST_S

seconds = st.floats(0.001, 1e5)
failures = st.one_of(st.integers(1, 10**6), st.floats(1, 100))


@given(failures, seconds, seconds, st.sampled_from([NONE, SOME, FULL]))
def test_a_wait_lies_within_its_bounds(count: float, first: float, most: float, jitter: float) -> None:
    """Doubled from the first to the last, give or take what chance may."""
    plain = min(first * 2 ** min(count - 1, 60), most)
    wait = wait_s(count, first_s=first, most_s=most, jitter=jitter)
    assert plain * (1 - jitter) <= wait <= plain * (1 + jitter)
    assert wait_s(count, first_s=first, most_s=most, jitter=NONE) == plain


@given(failures, seconds, st.floats())
def test_what_is_asked_for_is_the_least(count: float, first: float, asked: float) -> None:
    """A day at most; no number and less than nothing ask for nothing."""
    wait = wait_s(count, first_s=first, most_s=10.0, asked_s=asked)
    assert math.isfinite(wait)
    assert wait <= max(MOST_S, 10.0 * (1 + SOME))
    assert not 0 <= asked <= MOST_S or wait >= asked
    assert spread(first, asked_s=asked) >= first * (1 - SOME)


def test_several_that_wait_for_one_thing_do_not_come_back_together() -> None:
    """A hundred waits are a hundred moments, all over what chance may take."""
    waits = sorted(wait_s(1, first_s=10.0, most_s=60.0, jitter=FULL) for _ in range(100))
    assert len(set(waits)) == 100
    assert waits[0] < 5 < 15 < waits[-1]


def _grown_by_hand(path: Path) -> list[str]:
    """Return where a file draws lots, or doubles a wait within its bounds."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        drawn = isinstance(node, ast.Attribute) and node.attr in (
            "uniform",
            "random",
            "randint",
            "expovariate",
        )
        if drawn and ast.unparse(node) != "sa.func.random":  # the order of rows, and no wait
            found.append(f"{path.name}:{node.lineno}: {ast.unparse(node)}")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "min":
            text = ast.unparse(node)
            if ("wait" in text or "_FIRST_S" in text) and "* 2" in text:
                found.append(f"{path.name}:{node.lineno}: {text}")
    return found


def test_no_module_makes_its_own_waits_grow() -> None:
    """Nobody else draws lots, or doubles a wait."""
    paths = Path(dittohead.__file__).parent.rglob("*.py")
    assert [line for path in paths if path.name != "backoff.py" for line in _grown_by_hand(path)] == []
