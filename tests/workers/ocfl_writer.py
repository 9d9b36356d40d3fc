"""One ocfl step in a process of its own: `python -m tests.workers.ocfl_writer BASE PAYLOAD ROOT OPTIONS`.

It dies where MORTAL_DIES says; see tests/support/mortal.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from tests.support import mortal


def main(base: str, payload: str, root: str, options: str) -> None:
    mortal.arm(os.environ.get("MORTAL_DIES", ""), os.environ.get("MORTAL_REACHED", ""))
    from dittohead.workers.ocfl.options import OcflOptions
    from dittohead.workers.ocfl.worker import OcflWorker
    from tests.support.context import LoneContext

    ctx = LoneContext(Path(base), Path(payload))
    asyncio.run(OcflWorker().run(ctx, OcflOptions(root=root, **json.loads(options))))
    print(len(ctx.locations))


if __name__ == "__main__":
    main(*sys.argv[1:])
