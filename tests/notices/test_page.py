"""The page on notices says all there is: types, facts, events."""

from __future__ import annotations

import re
from pathlib import Path

from dittohead.config.notice_templates.samples import SAMPLES
from dittohead.notices.webhook import TYPES, WAITS_S

PAGE = (Path(__file__).parent.parent.parent / "docs" / "notices.md").read_text()


def test_each_type_is_named_with_exactly_its_facts() -> None:
    """So that a program can be written from the page alone."""
    for event, facts in SAMPLES.items():
        row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{TYPES[event]}` |"))
        words = set(re.findall(r"`([a-z_]+)`", row.partition("|")[2].partition("|")[2]))
        base = SAMPLES["done"].keys() if "as `job.done`" in row else set()
        assert base | words - {"host", "root"} | {"host", "root"} == facts.keys(), event


def test_each_variable_is_named() -> None:
    """With the parts it has."""
    for event, facts in SAMPLES.items():
        for name, value in facts.items():
            assert f"`{name}`" in PAGE or f"`{name}." in PAGE, (event, name)
            inner = value[0] if isinstance(value, list) else value
            for part in inner if isinstance(inner, dict) else ():
                assert f"`.{part}`" in PAGE or f"`{name}.{part}`" in PAGE, (event, name, part)


def test_the_schedule_is_that_of_the_code() -> None:
    """In people's units."""

    def words(seconds: float) -> str:
        for size, unit in ((3600, "h"), (60, "min"), (1, "s")):
            if seconds >= size:
                return f"{seconds / size:g} {unit}"
        raise AssertionError(seconds)

    assert f"after {', '.join(words(wait) for wait in WAITS_S)}: ten tries" in PAGE
