"""Fixtures for the tests of the pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dittohead import Source, Worker
from dittohead.config import registry
from tests.docs.pages import DOCS, blocks


def _shown(page: Path) -> dict[str, Any]:
    """Run the module that a page shows, and return what is in it."""
    (text,) = (block.text for block in blocks(page) if block.language == "python")
    made: dict[str, Any] = {"__name__": page.stem}
    exec(compile(text, str(page), "exec", dont_inherit=True), made)
    return made


@pytest.fixture(scope="module")
def examples() -> Iterator[None]:
    """The steps and sources of the pages on writing one, in this process as if they were installed."""
    shown = {page: _shown(DOCS / f"write-a-{page}.md") for page in ("worker", "source")}
    made: list[tuple[Any, Worker[Any] | Source[Any]]] = [
        (registry.default(), shown["worker"]["InventoryWorker"]()),
        (registry.sources(), shown["source"]["ShelfSource"]()),
    ]
    kept = [(found, dict(found._points), dict(found._loaded)) for found, _ in made]
    for found, thing in made:
        found.add(thing)
    yield
    for found, points, loaded in kept:
        found._points, found._loaded = points, loaded
