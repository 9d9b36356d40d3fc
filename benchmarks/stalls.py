"""A daemon process that notes how long its loop stands still: `python -m benchmarks.stalls CONFIG NOTES`."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from pathlib import Path

from dittohead import daemon
from dittohead.config.loader import load
from dittohead.system import log

#: Seconds between looks: a stall shorter than this does not count.
_EVERY_S = 0.002


class Watched(daemon.Daemon):
    """The daemon, and a task beside it that wants to run every two milliseconds."""

    def __init__(self, path: Path, notes: Path) -> None:
        super().__init__(load(path))
        self._notes = notes

    async def run(self) -> None:
        """Run, and write down what was seen at the end."""
        lates: list[float] = []
        watching = asyncio.ensure_future(_watch(lates))
        await super().run()
        watching.cancel()
        self._notes.write_text("\n".join(f"{late:.6f}" for late in lates))


async def _watch(lates: list[float]) -> None:
    while True:
        began, cpu = time.monotonic(), time.thread_time()
        await asyncio.sleep(_EVERY_S)
        late = time.monotonic() - began - _EVERY_S
        # On a busy machine the loop waits for a core; it stands still by what it computes itself.
        lates.append(min(late, time.thread_time() - cpu))


def main() -> None:
    """Run a daemon on the configuration given."""
    log.configure(level="info", json=True)
    gc.collect()
    gc.freeze()  # as daemon.main does
    asyncio.run(Watched(Path(sys.argv[1]), Path(sys.argv[2])).run())


if __name__ == "__main__":
    main()
