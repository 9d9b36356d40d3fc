"""Run islandora steps in processes that may be killed: `python -m tests.support.islandora_runner`.

Reads a JSON line {"base", "payload", "options", "description"} for each run, forks a child that runs the
step alone with its ledger and state on disk below `base`, and prints a JSON line: {"pid"} at once, then
{"status"} (of the child; negative for a signal), {"error"} or {"result"}. A fork, for the imports take
longer than the run.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from dittohead.contract.worker import Wait
from dittohead.model.description import Described
from dittohead.workers.islandora.worker import IslandoraOptions, IslandoraWorker
from tests.support.context import LoneContext
from tests.support.islandora_state import PASSWORD


class KeptContext(LoneContext):
    """Keeps what a worker saves on disk, as the store does."""

    def __init__(self, base: Path, payload: Path) -> None:
        super().__init__(base, payload, secrets={"password": PASSWORD})
        self._kept = base / "saved.json"
        if self._kept.exists():
            self.saved = json.loads(self._kept.read_bytes())

    async def save(self, state: dict[str, Any]) -> None:
        self._kept.write_text(json.dumps(state))


def run(order: dict[str, Any]) -> dict[str, Any]:
    """Run one step; return what came of it."""
    ctx = KeptContext(Path(order["base"]), Path(order["payload"]))
    ctx.description = Described.model_validate(order["description"])
    options = IslandoraOptions.model_validate(order["options"])
    before = _memory("VmRSS")

    async def step() -> dict[str, Any]:
        result = await IslandoraWorker().run(ctx, options)
        if isinstance(result, Wait):
            await ctx.save(result.state)
        return {"result": type(result).__name__, "locations": len(ctx.locations)}

    try:
        return {**asyncio.run(step()), "grown": _memory("VmHWM") - before}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}


def _memory(name: str) -> int:
    """Return a size of this process, bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise AssertionError(name)


def _say(fields: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def main() -> None:
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            sys.stdin.readline()  # the parent's go: the pid is known by now
            _say(run(json.loads(line)))
            os._exit(0)
        _say({"pid": pid})
        _, status = os.waitpid(pid, 0)
        _say({"status": os.waitstatus_to_exitcode(status)})


if __name__ == "__main__":
    main()
