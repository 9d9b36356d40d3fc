"""A worker that does nothing, and a daemon process that knows it: for the engine's own cost."""

from __future__ import annotations

import sys
from pathlib import Path

from dittohead import Done, Options, StepContext, StepResult, Worker, daemon
from dittohead.config import registry
from dittohead.config.loader import load
from dittohead.system import log


class NoopWorker(Worker[Options]):
    """Does nothing."""

    name = "noop"
    Options = Options
    default_limit = 8

    async def run(self, ctx: StepContext, options: Options) -> StepResult:
        """Do nothing."""
        return Done()


def main() -> None:
    """Run a daemon on the configuration given."""
    registry.default().add(NoopWorker())
    log.configure(level="info", json=True)
    daemon.main(load(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
