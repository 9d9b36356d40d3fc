"""One package step in a process of its own: `python -m tests.workers.package_writer BASE PAYLOAD OPTIONS KILL`.

It is killed when its progress is told for the time KILL (0: never), and where MORTAL_DIES says; see
tests/support/mortal.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from tests.support import mortal


def main(base: str, payload: str, options: str, kill: str) -> None:
    mortal.arm(os.environ.get("MORTAL_DIES", ""), os.environ.get("MORTAL_REACHED", ""))
    from tests.support.package import context, packed

    ctx = context(Path(base), Path(payload))
    told = 0

    def progress(done: int, total: int, unit: str) -> None:
        nonlocal told
        told += 1
        if told == int(kill):
            os.kill(os.getpid(), signal.SIGKILL)

    ctx.progress = progress  # type: ignore[method-assign]
    asyncio.run(packed(ctx, **json.loads(options)))
    (output,) = ctx.outputs
    print(output.path.decode(), output.sha256)


if __name__ == "__main__":
    main(*sys.argv[1:])
