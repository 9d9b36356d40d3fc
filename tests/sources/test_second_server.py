"""The same against another implementation of S3: rclone's server, which keeps no checksums but MD5."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from dittohead.store import drops as drop_store
from tests.support.source_harness import SourceHarness

pytestmark = pytest.mark.service

RCLONE = Path(sys.executable).parent / "rclone"


@pytest.fixture
def rclone(tmp_path: Path) -> Iterator[str]:
    """The address of a server on a directory."""
    (tmp_path / "served").mkdir()
    process = subprocess.Popen(
        [
            RCLONE,
            "serve",
            "s3",
            "--auth-key",
            "test,not-to-be-seen",
            "--addr",
            "127.0.0.1:0",
            tmp_path / "served",
        ],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "RCLONE_CONFIG": str(tmp_path / "rclone.conf")},
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            found = re.search(r"(http://127\.0\.0\.1:\d+)", line)
            if found:
                break
        else:
            raise AssertionError("rclone did not start")
        yield found[1]
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
async def source_harness(rclone: str, tmp_path: Path) -> AsyncIterator[SourceHarness]:
    made = SourceHarness(tmp_path, rclone)
    (tmp_path / "served" / made.bucket).mkdir()
    yield made
    made.harness.store.close()


async def test_a_listed_bucket_of_another_server_becomes_folders(
    source_harness: SourceHarness, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pages, names that are not ASCII, a resumed file; each verified by the MD5 it gives as ETag."""
    served = tmp_path / "served" / source_harness.bucket
    what = {f"f{number:04}": b"%d" % number for number in range(1500)}
    what |= {"sub/b c+d%.txt": b"two", "Über.xml": b"", "big": os.urandom(3 << 20)}
    for name, body in what.items():
        path = served / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    await source_harness.look()
    assert source_harness.items() == {"seen": len(what)}
    (source_harness.inbox / ".set").mkdir()  # as if killed after the first megabyte
    drop = await source_harness.runner._next()
    assert drop is not None
    assert await source_harness.runner.bring(drop) == 1
    assert source_harness.in_inbox("set") == {os.fsencode(name): body for name, body in what.items()}
    assert f"MD5 (ETag) kept by the store': {len(what)}" in capsys.readouterr().out
    assert await source_harness.round() == 0


async def test_half_a_file_is_gone_on_with_at_another_server(
    source_harness: SourceHarness, tmp_path: Path
) -> None:
    body = os.urandom(3 << 20)
    path = tmp_path / "served" / source_harness.bucket / "set" / "big"
    path.parent.mkdir()
    path.write_bytes(body)
    await source_harness.look()
    drop = await source_harness.runner._next()
    assert drop is not None
    ino = source_harness.runner._dropper._claim_directory(drop)
    source_harness.harness.store.run(drop_store.made, drop.id, ino)
    (source_harness.inbox / ".set" / "big").write_bytes(body[: 1 << 20])
    assert await source_harness.runner.bring() == 1
    assert source_harness.in_inbox("set") == {b"big": body}
