"""The long part: `python -m tests.crash --kills 1000 --folders 200 --seed 1`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.crash.batch import Batch
from tests.crash.driver import endure
from tests.support.receivers import mailbox
from tests.support.s3_server import S3Server
from tests.support.sshd import sshd


def main() -> None:
    """Run with a seed and print what was endured; a violation ends it with a traceback."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--folders", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dir", default="/var/tmp", help="where to work: on a disk, not in memory")
    given = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="crash-", dir=given.dir))
    print(f"seed {given.seed}, in {place} (kept when something does not hold)", file=sys.stderr)
    with sshd(place / "ssh") as server, mailbox() as box, S3Server() as store:
        batch = Batch.make(place / "root", place / "out", server, box, store, given.seed)
        try:
            said = endure(
                batch,
                kills=given.kills,
                folders=given.folders,
                say=lambda line: print(line, file=sys.stderr, flush=True),
            )
        finally:
            batch.kill(group=True) if batch.site.process else None
    print(f"seed {given.seed}: {said}")


if __name__ == "__main__":
    main()
