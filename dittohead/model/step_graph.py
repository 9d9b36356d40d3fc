"""Which step of a pipeline waits for which, and which are meant for a folder: pure functions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from dittohead.model.definition import JobDefinition, StepDefinition
from dittohead.model.records import StepRow
from dittohead.model.states import StepState


def needs(definition: JobDefinition) -> list[frozenset[int]]:
    """Return for each step of a job the positions of those that must be done before it.

    Jobs claimed before steps could name what they need wait for every step before.
    """
    at = {step.name: position for position, step in enumerate(definition.steps)}
    return [
        frozenset(range(position)) if step.needs is None else frozenset(at[name] for name in step.needs)
        for position, step in enumerate(definition.steps)
    ]


def ready(steps: Sequence[StepRow], needed: Sequence[frozenset[int]], busy: Collection[int]) -> list[int]:
    """Return the positions of the steps that may begin: all they need is done, and they are not.

    Args:
        steps: the job's steps, in the pipeline's order.
        needed: by position: the positions of the steps that have to be done before.
        busy: positions of steps that run, or wait for something.
    """
    done = {row.position for row in steps if row.state is StepState.DONE}
    return [
        row.position
        for row in steps
        if row.position not in done and row.position not in busy and needed[row.position] <= done
    ]


def dependents(needed: Sequence[frozenset[int]], positions: Iterable[int]) -> set[int]:
    """Return the positions and every step that waits for one of them, directly or not."""
    found = set(positions)
    for position, before in enumerate(needed):  # what a step needs comes before it
        if before & found:
            found.add(position)
    return found


def before(needed: Sequence[frozenset[int]], position: int) -> set[int]:
    """Return the positions of the steps that a step waits for, directly or not."""
    found = set(needed[position])
    for earlier in range(position - 1, -1, -1):  # what a step needs comes before it
        if earlier in found:
            found |= needed[earlier]
    return found


def chosen(steps: Sequence[StepDefinition], purposes: Collection[str]) -> tuple[StepDefinition, ...]:
    """Return the steps a folder is to have, each with what it needs among them.

    Args:
        steps: all steps of a pipeline, in their order.
        purposes: what the folder asks for; empty: everything. Steps without a purpose are always
            had, and those that a chosen one takes its files from.
    """
    by_name = {step.name: step for step in steps}
    wanted = {step.name for step in steps if not purposes or step.purpose in ("", *purposes)}
    for step in reversed(steps):
        if step.name in wanted and step.source:
            wanted.add(step.source)
    before: dict[str, set[str]] = {}
    for name, step in by_name.items():
        # Anyone who waits for a step that is left out waits for what that one waited for.
        before[name] = set().union(*({n} if n in wanted else before[n] for n in step.needs or ()))
    return tuple(
        replace(step, needs=tuple(sorted(before[step.name], key=list(by_name).index)))
        for step in steps
        if step.name in wanted
    )
