"""Fixtures for all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.house import House

# Nothing of the developer's own environment is to decide a test.
for key in list(os.environ):
    if key.startswith(("DITTOHEAD", "CREDENTIALS_", "NOTIFY_", "WATCHDOG_", "VIPS_", "RSYNC_")):
        del os.environ[key]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A root with three scripted steps."""
    made = House(tmp_path / "root")
    yield made
    made.store.close()
