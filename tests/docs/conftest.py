"""Fixtures for the tests of the pages."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from dittohead import Source, Worker, registry
from tests.docs.pages import DOCS


@pytest.fixture(scope="module")
def examples() -> Iterator[None]:
    """The steps and sources of docs/examples, in this process as if they were installed."""
    places = [str(DOCS / "examples" / name) for name in ("preservation", "grin")]
    sys.path[:0] = places
    from dittohead_grin import GrinSource
    from dittohead_preservation import PreserveWorker

    made: list[tuple[Any, Worker[Any] | Source[Any]]] = [
        (registry.default(), PreserveWorker()),
        (registry.sources(), GrinSource()),
    ]
    kept = [(found, dict(found._points), dict(found._loaded)) for found, _ in made]
    for found, thing in made:
        found.add(thing)
    yield
    for found, points, loaded in kept:
        found._points, found._loaded = points, loaded
    for place in places:
        sys.path.remove(place)
