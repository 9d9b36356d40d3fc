"""What the code calls the fields of an answer is what openapi.json publishes of it."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from dittohead.model import shown
from dittohead.web.api import shapes

#: (the dictionary that is written, the shape that is published of it)
PAIRS: list[tuple[type, type[BaseModel]]] = [
    (shown.ShownJob, shapes.JobSummary),
    (shown.ShownBatch, shapes.Batch),
    (shown.ShownEvent, shapes.Event),
    (shown.ShownLink, shapes.Link),
    (shown.ShownPlace, shapes.Place),
    (shown.ShownRequest, shapes.Request),
    (shown.ShownCopy, shapes.FilePlace),
    (shown.ShownFile, shapes.File),
    (shown.ShownReceiver, shapes.Receiver),
    (shown.ShownStatus, shapes.Status),
    (shown.ShownEntry, shapes.Entry),
    (shown.ShownChange, shapes.EntryChange),
    (shown.EntryHistory, shapes.EntryStory),
]


@pytest.mark.parametrize(("written", "published"), PAIRS, ids=lambda one: one.__name__)
def test_what_is_published_is_what_is_written(written: type, published: type[BaseModel]) -> None:
    """A field that is added to one is added to the other."""
    assert set(written.__annotations__) == set(published.model_fields)


def test_a_whole_job_is_published_with_its_progress() -> None:
    """The API adds how far a job is, which only the daemon knows."""
    assert {*shown.WholeJob.__annotations__, "progress"} == set(shapes.Job.model_fields)


@pytest.mark.parametrize(
    ("written", "published", "more"),
    [
        (shown.ShownStep, shapes.Step, set(shown.ShownTotals.__annotations__)),
        (shown.ShownSource, shapes.Source, {"reserved"}),
    ],
)
def test_what_is_published_is_written(written: type, published: type[BaseModel], more: set[str]) -> None:
    """Of steps and sources more is written than is published: it may be missing."""
    assert set(written.__annotations__) == {*published.model_fields, *more}
