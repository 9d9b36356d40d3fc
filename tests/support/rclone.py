"""`rclone serve s3` on loopback: an S3 server that is not moto's, and whose objects are plain files."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ACCESS, SECRET = "somebody", "not-to-be-seen"


@dataclass
class Rclone:
    """A running server; each directory below `base` is a bucket."""

    base: Path
    url: str


def program() -> str:
    """Return rclone, installed with the tests' packages."""
    found = shutil.which("rclone", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert found is not None, "rclone is missing: tools/setup test"
    return found


@contextlib.contextmanager
def rclone(base: Path, *, cache: str = "0s") -> Iterator[Rclone]:
    """Run a server until the block ends.

    Args:
        cache: how long it believes what it has seen of a directory; what it wrote itself it knows.
    """
    base.mkdir(parents=True, exist_ok=True)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    env = {**os.environ, "RCLONE_AUTH_KEY": f'"{ACCESS},{SECRET}"', "RCLONE_CONFIG": "/dev/null"}
    argv = [program(), "serve", "s3", "--addr", f"127.0.0.1:{port}", "--dir-cache-time", cache, str(base)]
    with subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(1000):
                assert process.poll() is None, "rclone did not start"
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.01)
            yield Rclone(base, f"http://127.0.0.1:{port}")
        finally:
            process.terminate()
