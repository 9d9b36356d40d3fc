"""What each test costs: seconds of a processor, of the tests' own process and of all it has started.

`TEST_COSTS=FILE pytest ...` adds a line for each test; `tools/costs FILE` sums them up by file. Unlike the time
that a clock shows, this depends little on what else the machine does.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.forks import Forked


def _used() -> tuple[float, float]:
    """Return the seconds used by this process, and by those it has waited for."""
    own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime, others.ru_utime + others.ru_stime + Forked.cpu


class Costs:
    """A plugin of pytest's that writes them into a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Note what a test and its fixtures have cost; what runs on after it is counted with a later one."""
        before = _used()
        result = yield
        own, others = (now - then for now, then in zip(_used(), before, strict=True))
        with open(self._path, "a") as file:
            file.write(f"{own:.3f}\t{others:.3f}\t{item.nodeid}\n")
        return result


def install(config: pytest.Config) -> None:
    """Register the plugin, if it is asked for."""
    if path := os.environ.get("TEST_COSTS"):
        config.pluginmanager.register(Costs(Path(path).absolute()))
