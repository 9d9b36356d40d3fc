"""What one folder costs the store and the disk: as little as it did, whatever is added later.

Speed is measured in benchmarks/; these are counts, which no busy machine changes.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.harness import Harness

_STEPS = ", ".join(f"{{script: {{name: s{number}}}}}" for number in range(5))
CONFIG = f'root: .\nspace: {{floor: 0}}\npipelines: {{all: {{match: ".*", steps: [{_STEPS}]}}}}\n'

#: Of a folder with one file through five steps that do nothing: claim, manifest, begin, five steps, end.
MOST = {"write": 9, "read": 3, "fsync": 8}


async def test_a_folder_costs_no_more_transactions_reads_and_fsyncs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = Harness(tmp_path / "root", CONFIG)
    did: Counter[str] = Counter()

    def counted(name: str, call: Any) -> Any:
        def counts(*args: Any, **kwargs: Any) -> Any:
            did[name] += 1
            return call(*args, **kwargs)

        return counts

    async with harness.running():
        harness.arrive("first")  # pays for what is made once
        harness.offer()
        await harness.until_over("first")
        await harness.until(lambda: not harness.dispatch.running)
        for name in ("write", "read"):
            monkeypatch.setattr(harness.store, name, counted(name, getattr(harness.store, name)))
        monkeypatch.setattr(os, "fsync", counted("fsync", os.fsync))
        harness.arrive("second")
        harness.offer()
        await harness.until_over("second")
        await harness.until(lambda: not harness.dispatch.running)
    harness.store.close()
    assert did["write"] >= 5, "the steps are counted"
    assert {name: count for name, count in did.items() if count > MOST[name]} == {}
