"""unpack, of zip archives: of Info-ZIP, Python and others; what `zipfile` passes over is refused."""

from __future__ import annotations

import io
import random
import shutil
import stat
import struct
import subprocess
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.archives import flipped
from tests.support.trees import read_tree, symlink, tree
from tests.workers.test_unpack import FILES, Rig, as_bytes

pytestmark = pytest.mark.service


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def zipped(files: dict[str, bytes] | list[tuple[Any, bytes]], **more: Any) -> bytes:
    """Return an archive of Python's; a name may be a `ZipInfo`."""
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that come twice
        with zipfile.ZipFile(out, "w", **{"compression": zipfile.ZIP_DEFLATED, **more}) as archive:
            for name, data in files.items() if isinstance(files, dict) else files:
                archive.writestr(name, data)
    return out.getvalue()


def info(name: str, mode: int = 0, **fields: Any) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name)
    made.external_attr = mode << 16
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def info_zip(base: Path, files: dict[str, Any], *options: str) -> bytes:
    tree(base, files)
    subprocess.run(["zip", "-qr", *options, "../made.zip", "."], cwd=base, check=True)
    return (base.parent / "made.zip").read_bytes()


@pytest.mark.parametrize(
    "compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
async def test_archives_of_python(rig: Rig, compression: int) -> None:
    """Plain, and encrypted as a whole by gpg."""
    data = zipped(FILES, compression=compression)
    assert await rig.one(data, "v.zip") == as_bytes(FILES)
    assert await rig.one(rig.seal(data), "v.zip.gpg", credential="pass") == as_bytes(FILES)
    assert await rig.one(rig.seal(data), "v.zip.gpg", credential="pass", keep="archive") == {b"v.zip": data}
    both = {**as_bytes(FILES), b"v.zip": data}
    assert await rig.one(rig.seal(data), "v.zip.gpg", credential="pass", keep="both") == both


@pytest.mark.parametrize("options", [[], ["-fz"], ["-0"], ["-Z", "bzip2"], ["-UN=UTF8"], ["-UN=ESCAPE"]])
async def test_archives_of_info_zip(rig: Rig, tmp_path: Path, options: list[str]) -> None:
    """With zip64's fields, with names that are not ASCII, with directories."""
    files = {"a": b"1", "é.txt": b"2" * 9999, "sub": {"ü": b"3", "empty": b""}}
    made = info_zip(tmp_path / "in", files, *options)
    assert await rig.one(made, "v.zip", members=["**"]) == read_tree(tmp_path / "in")


@pytest.mark.skipif(shutil.which("bsdtar") is None, reason="bsdtar is not installed")
@pytest.mark.parametrize("format", ["zip", "ustar", "pax", "gnutar"])
async def test_archives_of_bsdtar(rig: Rig, tmp_path: Path, format: str) -> None:
    """A streaming writer: sizes stand behind the members."""
    tree(tmp_path / "in", FILES)
    argv = ["bsdtar", f"--format={format}", "-cf", "-", *FILES]
    made = subprocess.run(argv, cwd=tmp_path / "in", capture_output=True, check=True).stdout
    assert await rig.one(made, "v") == as_bytes(FILES)


async def test_more_members_than_the_old_format_holds(rig: Rig) -> None:
    """zip64 for their number."""
    data = zipped({f"{n:05}": b"" for n in range(66_000)}, compression=zipfile.ZIP_STORED)
    assert await rig.one(data, "v.zip", keep="archive") == {b"v.zip": data}
    assert "66,000 members" in " ".join(event.detail for event in rig.ctx.events)


async def test_encrypted_members_are_refused(rig: Rig, tmp_path: Path) -> None:
    """Zip's own encryption, weak or strong."""
    made = info_zip(tmp_path / "in", {"a": b"secret" * 99}, "-P", "word")
    await rig.refused(made, "encrypted by zip's own means")
    if shutil.which("7z"):
        argv = [
            "7z",
            "a",
            "-tzip",
            "-mem=AES256",
            "-pword",
            str(tmp_path / "s.zip"),
            str(tmp_path / "in" / "a"),
        ]
        subprocess.run(argv, check=True, capture_output=True)
        await rig.refused((tmp_path / "s.zip").read_bytes(), "encrypted by zip's own means")


@pytest.mark.skipif(shutil.which("7z") is None, reason="7z is not installed")
@pytest.mark.parametrize("method", ["Deflate64", "PPMd"])
async def test_methods_that_are_not_read(rig: Rig, tmp_path: Path, method: str) -> None:
    """It is said which."""
    tree(tmp_path / "in", {"a": b"text " * 9999})
    argv = ["7z", "a", "-tzip", f"-mm={method}", str(tmp_path / "s.zip"), str(tmp_path / "in" / "a")]
    subprocess.run(argv, check=True, capture_output=True)
    error = await rig.refused((tmp_path / "s.zip").read_bytes(), "compressed in a way that is not read here")
    assert '"a"' in error.what


async def test_links_of_info_zip(rig: Rig, tmp_path: Path) -> None:
    """Kept as links by `zip -y`."""
    made = info_zip(tmp_path / "in", {"a": b"1", "l": symlink("/etc/passwd")}, "-y")
    await rig.refused(made, "a member is a symbolic link")


@pytest.mark.parametrize(
    ("evil", "said"),
    [
        ("../x", "leads out of the directory"),
        ("/x", "an absolute name"),
        ("a/../../x", "leads out of the directory"),
        (info("..\\x"), "holds a backslash"),
        (info("d", stat.S_IFIFO | 0o644), "a member is a FIFO"),
        (info("d", stat.S_IFCHR | 0o644), "a member is a character device"),
        ("00000001.jp2", "two members have this name"),
        ("00000001.JP2", "are one file where"),
        ("00000001.txt/x", "cannot hold this member"),
        ("sub/x", "not among those that are expected"),
    ],
)
async def test_evil_members(rig: Rig, evil: Any, said: str) -> None:
    """As of tar archives."""
    patterns = ["*"] if evil == "sub/x" else ["**"]
    await rig.refused(zipped([*FILES.items(), (evil, b"1")]), said, members=patterns)


async def test_a_name_that_a_nul_cuts_short(rig: Rig) -> None:
    """Python's own class shows the beginning alone."""
    made = zipped({"a_b": b"1"}).replace(b"a_b", b"a\0b")
    await rig.refused(made, "holds a NUL")


def _with_lie(data: bytes, offset: int, form: str, value: int) -> bytes:
    """Return an archive of one member with a field of its entry in the list changed."""
    entry = data.index(b"PK\x01\x02")
    size = struct.calcsize(form)
    return data[: entry + offset] + struct.pack(form, value) + data[entry + offset + size :]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data[:-1], "damaged"),
        (lambda data: data[: len(data) // 2], "its list of members cannot be read"),
        (lambda data: data + b"garbage", "something follows the end of the zip archive"),
        (lambda data: b"#!/bin/sh\n" + data, "not a tar or zip archive"),
        (lambda data: b"PK\x03\x04" + data, "something stands before the zip archive"),
        (lambda data: flipped(data, 2000), "a member is damaged"),
        (lambda data: _with_lie(data, 16, "<L", 1), "a member is damaged"),  # CRC
        (lambda data: _with_lie(data, 24, "<L", 99_999_999), "a member"),  # size
        (lambda data: _with_lie(data, 24, "<L", 10), "a member"),
        (lambda data: _with_lie(data, 20, "<L", 1 << 30), "truncated"),  # compressed size
        (lambda data: _with_lie(data, 46, "<B", ord("X")), "a member is damaged"),  # another name
        (lambda data: _with_lie(data, 42, "<L", 17), "something stands before"),  # offset
    ],
)
async def test_damaged_archives(rig: Rig, change: Callable[[bytes], bytes], said: str) -> None:
    """The list at the end and what lies before it must agree."""
    whole = zipped({"a": random.Random(3).randbytes(5000)})
    assert len(await rig.one(whole)) == 1
    await rig.refused(change(whole), said)


async def test_members_that_share_their_bytes(rig: Rig) -> None:
    """As in bombs that no ratio of a single member gives away."""
    made = zipped([("a", b"1" * 5000), ("b", b"1" * 5000)])
    first = made.index(b"PK\x01\x02")
    second = made.index(b"PK\x01\x02", first + 1)
    shared = made[: second + 42] + struct.pack("<L", 0) + made[second + 46 :]
    await rig.refused(shared, "share their bytes")


async def test_bombs(rig: Rig) -> None:
    """By what comes out, not by what the list says."""
    huge = zipped({"a": bytes(100 << 20)})
    error = await rig.refused(huge, "as of a compression bomb")
    assert "max_ratio" in error.hint
    modest = _with_lie(huge, 24, "<L", 1000)
    await rig.refused(modest, "a member")
    await rig.refused(zipped({}), "it holds no files")
