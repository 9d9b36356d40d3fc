"""pack: the same bytes each time, which every tar reads."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from dittohead.model.errors import ItemError
from dittohead.workers.pack import PackOptions, PackWorker
from dittohead.workers.unpack.options import UnpackOptions
from dittohead.workers.unpack.worker import UnpackWorker
from tests.support.context import LoneContext, source_of
from tests.support.trees import read_tree, tree

FILES: dict[str | bytes, Any] = {
    "b.tif": os.urandom(70_000),
    "a": b"",
    b"\xff": b"not text",
    "n" * 150: b"long",
    "sub": {"é\n": b"2", "empty": {}},
}


async def packed(base: Path, payload: Path, **options: Any) -> tuple[LoneContext, bytes]:
    ctx = LoneContext(base, payload)
    await PackWorker().run(ctx, PackOptions.model_validate({"path": "vol.tar", **options}))
    (output,) = ctx.outputs
    data = (ctx.work / os.fsdecode(output.path)).read_bytes()
    assert (output.size, output.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    return ctx, data


@pytest.mark.parametrize("compress", ["none", "gzip"])
async def test_the_same_each_time(tmp_path: Path, compress: str) -> None:
    """Whatever times, modes and order the files have on disk."""
    one = tree(tmp_path / "1" / "vol", FILES)
    two = tree(tmp_path / "2" / "vol", dict(reversed(FILES.items())))
    os.utime(two / "a", (1, 1))
    (two / "a").chmod(0o600)
    _, first = await packed(tmp_path / "x", one, compress=compress)
    ctx, second = await packed(tmp_path / "y", two, compress=compress)
    assert first == second
    ctx.again()
    await PackWorker().run(ctx, PackOptions.model_validate({"path": "vol.tar", "compress": compress}))
    assert (ctx.work / "vol.tar").read_bytes() == first
    assert set(os.listdir(ctx.work)) == {"vol.tar"}


@pytest.mark.service
@pytest.mark.parametrize("program", ["tar", "bsdtar"])
async def test_others_read_it(tmp_path: Path, program: str) -> None:
    """GNU tar and bsdtar, without an error."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    payload = tree(tmp_path / "vol", FILES)
    ctx, _ = await packed(tmp_path, payload, path="v.tar.gz", compress="gzip", prefix="data")
    out = tmp_path / "out"
    out.mkdir()
    env = {**os.environ, "LC_ALL": "C.UTF-8"}
    argv = [program, "-xzf", ctx.work / "v.tar.gz", "-C", out]
    said = subprocess.run(argv, capture_output=True, check=True, env=env)
    # What says that a name is not UTF-8 is POSIX's own keyword, which GNU tar does not need.
    assert {line for line in said.stderr.splitlines() if b"hdrcharset" not in line} == set()
    assert read_tree(out / "data") == read_tree(payload)


async def test_unpack_reads_it_and_it_is_plain(tmp_path: Path) -> None:
    """Nobody's name, no time; a name that ustar holds needs no extended header."""
    payload = tree(tmp_path / "vol", {"a": b"1", "sub": {"b": b"2"}})
    ctx, data = await packed(tmp_path / "x", payload, mtime=86400)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        seen = [(m.name, m.uid, m.uname, m.mtime, m.mode, m.pax_headers) for m in tar]
    assert seen == [("a", 0, "", 86400, 0o644, {}), ("sub/b", 0, "", 86400, 0o644, {})]
    again = LoneContext(tmp_path / "y", payload, source=source_of(ctx.work))
    await UnpackWorker().run(again, UnpackOptions(members=["**"]))
    assert read_tree(again.work) == read_tree(payload)


async def test_what_cannot_be_packed(tmp_path: Path) -> None:
    """Nothing, and files that are not what they were: no archive is left of these."""
    with pytest.raises(ItemError, match="no files to pack"):
        await packed(tmp_path / "x", tree(tmp_path / "empty", {"d": {}}))
    payload = tree(tmp_path / "vol", {"a": b"1", "b": b"2" * 1000})
    for change in (b"3" * 1000, b"2", b"2" * 2000):
        ctx = LoneContext(tmp_path / "y", payload, source=source_of(payload))
        (payload / "b").write_bytes(change)
        with pytest.raises(ItemError, match="not what it was"):
            await PackWorker().run(ctx, PackOptions())
        assert os.listdir(ctx.work) == []
        (payload / "b").write_bytes(b"2" * 1000)
