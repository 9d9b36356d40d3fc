"""Fixtures for all tests."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before whatever loads libvips: that of Debian 13 brings the system's libheif for the whole process, and this
# would take that for its own, which writes no HEIF.
import pillow_heif  # noqa: F401
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings

from dittohead.store import Store
from dittohead.workers.iiif import manifest
from tests.support import blocking, costs, forks, length
from tests.support.harness import Harness

# Nothing of the developer's own environment is to decide a test.
for key in list(os.environ):
    if key.startswith(("DITTOHEAD", "CREDENTIALS_", "NOTIFY_", "WATCHDOG_", "VIPS_", "RSYNC_")):
        del os.environ[key]


# A busy machine is not a fault of what is tried.
settings.register_profile(
    "busy", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=length.EXAMPLES
)
settings.load_profile("busy")


def pytest_configure(config: pytest.Config) -> None:
    """Let the costs of tests be written down, if that is asked for, and image children start at once."""
    costs.install(config)
    forks.fork_image_children()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what belongs to another part of the run, and begin with the files that take long."""
    items[:], left = length.chosen(items)
    if left:
        config.hook.pytest_deselected(items=left)


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors: tests also wait, for disks and for what is due later."""
    return len(os.sched_getaffinity(0)) + 1


@pytest.fixture(autouse=True)
def every_manifest_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a test is about: no manifest and no collection is written that is not valid."""
    write = manifest.written

    def seen(value: dict[str, Any]) -> bytes:
        from tests.support import iiif  # it takes a while, and few tests write one

        data = write(value)
        iiif.see(json.loads(data))
        return data

    monkeypatch.setattr(manifest, "written", seen)


@pytest.fixture(autouse=True)
def _every_store_is_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Of one that is left open Python 3.13 complains in whichever test runs when it is tidied up."""
    opened: list[Store] = []
    init = Store.__init__

    def noting(store: Store, url: sa.URL) -> None:
        init(store, url)
        opened.append(store)

    monkeypatch.setattr(Store, "__init__", noting)
    yield
    for store in opened:
        store.close()


@pytest.fixture
def real_image_children() -> Iterator[None]:
    """Start them as the daemon does: for tests that are about the process."""
    forks.real_image_children.append("a test")
    yield
    forks.real_image_children.clear()


@pytest.fixture
def nothing_blocks_the_loop() -> Iterator[None]:
    """What blocks it stops every folder, the page and the watchdog at once."""
    with blocking.refused():
        yield


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    """A root with three scripted steps."""
    made = Harness(tmp_path / "root")
    yield made
    made.store.close()
