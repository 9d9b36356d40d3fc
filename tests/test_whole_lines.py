"""Lines of logs for programs: whole, whatever the pieces they come in."""

from __future__ import annotations

from dittohead.cli import watch


def test_lines_of_several_steps_are_put_together() -> None:
    """A piece may end within a line; the last line may have no end; what never ends is not held forever."""
    pieces = [("a", "on"), ("b", "x\n"), ("a", "e\ntwo"), ("b", "\ny"), ("a", "\n")]
    assert list(watch._whole_lines(pieces)) == [("b", "x"), ("a", "one"), ("b", ""), ("a", "two"), ("b", "y")]
    endless = [("a", "z" * 600_000)] * 4
    assert [len(line) for _, line in watch._whole_lines(endless)] == [1_000_000, 1_000_000, 400_000]
