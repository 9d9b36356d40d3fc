"""Errors of groups of tasks arrive as what they are, with every Python that is supported."""

from __future__ import annotations

import ast
import asyncio
from pathlib import Path

import pytest

from dittohead.model.errors import DittoheadError, StepError, TransientError, ungrouped
from tests.support.wheel import TOP, tracked


async def raising(*errors: BaseException) -> None:
    async def one(error: BaseException) -> None:
        raise error

    with ungrouped(DittoheadError, OSError):
        async with asyncio.TaskGroup() as group:
            for error in errors:
                group.create_task(one(error))


@pytest.mark.parametrize(
    "errors",
    [
        [TransientError("slow down")],
        [OSError(28, "full"), StepError("no")],
        [ExceptionGroup("inner", [ExceptionGroup("innermost", [TransientError("slow down")])])],
    ],
)
async def test_the_first_error_arrives_by_itself(errors: list[Exception]) -> None:
    """In a group, a temporary fault would be a defect, and its folder would go to failed/."""
    with pytest.raises((TransientError, OSError)) as caught:
        await raising(*errors)
    assert type(caught.value) in (TransientError, OSError)
    assert caught.value.__suppress_context__


async def test_a_defect_beside_it_is_not_hidden() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await raising(TransientError("slow down"), TypeError("a defect"))
    assert caught.group_contains(TypeError, depth=1)


async def test_a_cancellation_and_what_is_no_group_pass_through() -> None:
    with pytest.raises(asyncio.CancelledError), ungrouped(StepError):
        raise asyncio.CancelledError
    with pytest.raises(StepError, match="by itself"), ungrouped(StepError):
        raise StepError("by itself")


def test_no_clause_is_used_whose_meaning_differs_between_supported_pythons() -> None:
    """Before Python 3.11.4, what a clause `except*` raises arrives in a group; `ungrouped` does not."""
    programs = [name for name in tracked() if name.endswith(".py")]
    assert len(programs) > 100
    starred = [
        f"{name}:{node.lineno}"
        for name in programs
        for node in ast.walk(ast.parse(Path(TOP / name).read_bytes()))
        if isinstance(node, ast.TryStar)
    ]
    assert starred == []
