"""Which step waits for which, and which are meant for a folder."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dittohead.model import step_graph
from dittohead.model.definition import JobDefinition, StepDefinition, StepTotals, read_definition
from dittohead.model.records import StepRow
from dittohead.model.states import StepState


def step(name: str, *needs: str, source: str = "", purpose: str = "") -> StepDefinition:
    return StepDefinition(name=name, worker="w", options={}, source=source, needs=needs, purpose=purpose)


def rows(*states: StepState) -> list[StepRow]:
    return [
        StepRow(
            position=n,
            name=f"s{n}",
            worker="w",
            state=state,
            attempts=0,
            started_at=None,
            finished_at=None,
            saved={},
            result=StepTotals(),
            error="",
        )
        for n, state in enumerate(states)
    ]


def test_a_job_of_before_waits_for_every_step_before() -> None:
    """Jobs in flight when the daemon was updated go on in the order they had."""
    definition = read_definition(
        {"steps": [{"name": name, "worker": "w", "options": {}, "from": ""} for name in "abc"]}
    )
    assert step_graph.needs(definition) == [frozenset(), {0}, {0, 1}]


def test_what_is_ready_is_neither_done_nor_busy_and_has_all_it_needs() -> None:
    """A diamond: two in parallel, the last when both are done."""
    needed = step_graph.needs(
        JobDefinition(steps=(step("a"), step("b", "a"), step("c", "a"), step("d", "b", "c")))
    )
    pending, done = StepState.PENDING, StepState.DONE
    assert step_graph.ready(rows(pending, pending, pending, pending), needed, ()) == [0]
    assert step_graph.ready(rows(done, pending, pending, pending), needed, ()) == [1, 2]
    assert step_graph.ready(rows(done, pending, pending, pending), needed, {2}) == [1]
    assert step_graph.ready(rows(done, done, pending, pending), needed, {2}) == []
    assert step_graph.ready(rows(done, done, done, pending), needed, ()) == [3]
    assert [step_graph.before(needed, at) for at in range(4)] == [set(), {0}, {0}, {0, 1, 2}]
    assert step_graph.dependents(needed, [1]) == {1, 3}
    assert step_graph.dependents(needed, [0]) == {0, 1, 2, 3}


PIPELINE = [
    step("masters", purpose="preservation"),
    step("send", "masters", source="masters", purpose="preservation"),
    step("tiles", purpose="access"),
    step("show", "tiles", "send", source="tiles", purpose="access"),
    step("record", "masters", "send", "tiles", "show"),
]


def test_a_folder_has_the_steps_it_asks_for_and_those_without_a_purpose() -> None:
    """And nobody waits for a step that is left out."""
    assert [s.name for s in step_graph.chosen(PIPELINE, ())] == [
        "masters",
        "send",
        "tiles",
        "show",
        "record",
    ]
    found = step_graph.chosen(PIPELINE, {"access"})
    assert [(s.name, s.needs) for s in found] == [
        ("tiles", ()),
        ("show", ("tiles",)),
        ("record", ("tiles", "show")),
    ]


def test_whoever_waits_for_a_step_left_out_waits_for_what_that_one_waited_for() -> None:
    """The order stays, with a hole in it."""
    steps = [step("a"), step("b", "a", purpose="x"), step("c", "b")]
    assert [(s.name, s.needs) for s in step_graph.chosen(steps, {"y"})] == [("a", ()), ("c", ("a",))]


def test_a_step_is_had_when_one_that_is_takes_its_files_from_it() -> None:
    """Whatever it is for itself."""
    steps = [step("m", purpose="p"), step("n", "m", source="m"), step("o", "n", source="n", purpose="a")]
    assert [s.name for s in step_graph.chosen(steps, {"a"})] == ["m", "n", "o"]


@given(st.data())
def test_every_step_gets_its_turn_whatever_waits_for_what(data: st.DataObject) -> None:
    """No plan can lock itself: steps need earlier ones only, and leaving some out keeps that."""
    count = data.draw(st.integers(1, 8))
    steps = []
    for n in range(count):
        before = [f"s{i}" for i in range(n)]
        needs = data.draw(st.lists(st.sampled_from(before), unique=True)) if before else []
        source = data.draw(st.sampled_from(["", *needs]))
        steps.append(step(f"s{n}", *needs, source=source, purpose=data.draw(st.sampled_from(["", "x", "y"]))))
    found = step_graph.chosen(steps, data.draw(st.sets(st.sampled_from(["x", "y"]))))
    needed = step_graph.needs(JobDefinition(steps=found))
    states = [StepState.PENDING] * len(found)
    for _ in found:
        ready = step_graph.ready(rows(*states), needed, ())
        assert ready
        states[ready[-1]] = StepState.DONE
    assert step_graph.ready(rows(*states), needed, ()) == []
