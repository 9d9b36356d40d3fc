"""Lists of checksums that came along, in all the forms that people send."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dittohead.model.errors import ItemError
from dittohead.toolkit import checksum_lists
from dittohead.workers.checksum.worker import ChecksumOptions, ChecksumWorker
from tests.support.context import LoneContext, source_of
from tests.support.trees import tree

FILES: dict[str | bytes, Any] = {"a.tif": b"image", "sub": {"b c.tif": b"two", "é.txt": b""}}
PATHS = ["a.tif", "sub/b c.tif", "sub/é.txt"]


def digest(folder: Path, path: str, algorithm: str) -> str:
    return hashlib.new(algorithm, (folder / path).read_bytes(), usedforsecurity=False).hexdigest()


def lines(
    form: Callable[[str, str], str], algorithm: str = "md5", end: str = "\n"
) -> Callable[[Path], bytes]:
    return lambda folder: "".join(
        form(digest(folder, path, algorithm), path) + end for path in PATHS
    ).encode()


async def compared(base: Path, folder: Path, **options: Any) -> LoneContext:
    ctx = LoneContext(base, folder)
    await ChecksumWorker().run(ctx, ChecksumOptions.model_validate({"compare": True, **options}))
    return ctx


async def refused(base: Path, folder: Path, **options: Any) -> str:
    with pytest.raises(ItemError) as caught:
        await compared(base, folder, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("checksum.md5", lines(lambda hex, path: f"{hex}  {path}")),
        ("checksum.md5", lines(lambda hex, path: f"{hex} *{path}")),
        ("checksum.md5", lines(lambda hex, path: f"{hex}\t{path}")),
        ("checksum.md5", lines(lambda hex, path: f"{hex}  ./{path}")),
        ("checksum.md5", lines(lambda hex, path: f"{hex}  {path}", end="\r\n")),
        ("checksum.md5", lines(lambda hex, path: f"{hex.upper()}  {path}")),
        ("checksum.md5", lambda folder: b"# made by hand\n\n" + lines(lambda hex, path: f"{hex} {path}")(folder)),
        ("checksum.md5", lambda folder: b"\xef\xbb\xbf" + lines(lambda hex, path: f"{hex}  {path}")(folder)),
        ("CHECKSUM.MD5", lambda folder: lines(lambda hex, path: f"{hex}  {path}")(folder).decode().encode("utf-16")),
        ("checksum.md5", lines(lambda hex, path: f"{hex} *{path}".replace("/", "\\"))),
        ("md5sums", lines(lambda hex, path: f"MD5 ({path}) = {hex}")),
        ("md5sums", lines(lambda hex, path: f"MD5({path})= {hex}")),
        ("SHA1SUMS", lines(lambda hex, path: f"{hex}  {path}", "sha1")),
        ("SHA256SUMS.txt", lines(lambda hex, path: f"SHA2-256({path})= {hex}", "sha256")),
        ("x.sha512", lines(lambda hex, path: f"{hex}  {path}", "sha512")),
        ("manifest-sha384.txt", lines(lambda hex, path: f"{hex} {path}", "sha384")),
        ("checksums.csv", lines(lambda hex, path: f'"{path}",{hex}', "sha256")),
        ("checksums.csv", lines(lambda hex, path: f"{hex};{path}", "sha256")),
        ("checksums.txt", lines(lambda hex, path: f"{path}\t{hex}", "sha256")),
        ("checksums.csv", lambda folder: b"No,File Name,Size,MD5\n" + lines(lambda hex, path: f'1,{path},"3,5",{hex}')(folder)),
    ],
)  # fmt: skip
async def test_forms_of_lists(tmp_path: Path, name: str, content: Callable[[Path], bytes]) -> None:
    """Each is read, agrees, and tells a change of one bit and a file too many."""
    folder = tree(tmp_path / "vol", FILES)
    (folder / name).write_bytes(content(folder))
    ctx = await compared(tmp_path / "1", folder)
    assert any("3 files compared with " in event.detail for event in ctx.events)
    (folder / "a.tif").write_bytes(b"imagf")
    said = await refused(tmp_path / "2", folder)
    assert f"a.tif: its digest is not what {name} says" in said
    (folder / "a.tif").unlink()
    (folder / "new.tif").write_bytes(b"")
    said = await refused(tmp_path / "3", folder)
    assert f"a.tif: {name} names it, and it is not there" in said
    assert "new.tif: no list names it" in said
    assert "sub" not in said


async def test_names_count_from_where_the_list_lies(tmp_path: Path) -> None:
    """A list in each folder; and one that only holds the digest of the file it is named after."""
    folder = tree(tmp_path / "vol", {"a": {"x.tif": b"1"}, "b": {"x.tif": b"2"}})
    for name in "ab":
        (folder / name / "checksum.md5").write_text(f"{digest(folder, f'{name}/x.tif', 'md5')}  x.tif\n")
    await compared(tmp_path / "1", folder)
    (folder / "b/checksum.md5").unlink()
    (folder / "b/x.tif.sha256").write_text(digest(folder, "b/x.tif", "sha256"))
    await compared(tmp_path / "2", folder)
    (folder / "b/x.tif").write_bytes(b"3")
    assert "b/x.tif: its digest is not what b/x.tif.sha256 says" in await refused(tmp_path / "3", folder)


async def test_two_lists_of_one_file_must_both_agree(tmp_path: Path) -> None:
    folder = tree(tmp_path / "vol", {"a": b"1"})
    (folder / "a.md5").write_text(f"{digest(folder, 'a', 'md5')}  a\n")
    (folder / "a.sha1").write_text(f"{'0' * 40}  a\n")
    assert "a: its digest is not what a.sha1 says" in await refused(tmp_path, folder)


async def test_what_no_list_names(tmp_path: Path) -> None:
    """Fails, or is noted."""
    folder = tree(tmp_path / "vol", {"a": b"1", "b": b"2"})
    (folder / "a.md5").write_text(f"{digest(folder, 'a', 'md5')}  a\n")
    assert "b: no list names it" in await refused(tmp_path / "1", folder)
    ctx = await compared(tmp_path / "2", folder, surplus="note")
    (event,) = [event for event in ctx.events if "a.md5" in event.detail]
    assert (event.outcome, "1 file in no list" in event.detail) == ("warning", True)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"nonsense\n", "line 1 is not a digest, two blanks and a name"),
        (b"abc  a\n", "line 1 is not a digest, two blanks and a name"),
        (
            b"0" * 32 + b"  a\n" + b"1" * 32 + b"  a\n",
            "line 2 gives a file another digest than a line before",
        ),
        (b"0" * 32 + b"  a\n" + b"1" * 40 + b"  b\n", "it holds digests of several kinds"),
        (b"a,b,c\n1,2,3\n", "line 1 has no columns for a name and a digest"),
        (b"file,md5\na,\n", "line 2 has no name or no digest in its column"),
        (b'file,md5\n"a\n', "it cannot be read as a table"),
        (b"\xff\xfe\0", "it begins as UTF-16 and is not"),
    ],
)
async def test_a_list_that_cannot_be_read_stops(tmp_path: Path, content: bytes, reason: str) -> None:
    folder = tree(tmp_path / "vol", {"a": b"1", "checksum.md5": content})
    said = await refused(tmp_path, folder)
    assert f"this list of checksums cannot be read: {reason}" in said
    assert "checksum.md5" in said


async def test_no_list_at_all(tmp_path: Path) -> None:
    folder = tree(tmp_path / "vol", {"a": b"1"})
    assert "the folder has no list of checksums" in await refused(tmp_path / "1", folder)
    (folder / "checksum.md5").write_text(f"{digest(folder, 'a', 'md5')}  a\n")
    assert "(other.txt)" in await refused(tmp_path / "2", folder, compare=["other.txt"])


async def test_one_read_serves_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verified by the manifest and compared with three lists: each file is read once."""
    folder = tree(tmp_path / "vol", {"a": b"1" * 100})
    for name in ("md5", "sha1", "sha512"):
        (folder / f"a.{name}").write_text(f"{digest(folder, 'a', name)}  a\n")
    source, read, real = source_of(folder), [], os.readv

    def readv(fd: int, buffers: Any) -> int:
        read.append(count := real(fd, buffers))
        return count

    monkeypatch.setattr(os, "readv", readv)
    ctx = LoneContext(tmp_path, folder, source=source)
    await ChecksumWorker().run(ctx, ChecksumOptions(compare=True))
    assert sum(count == 100 for count in read) == 1


async def test_a_change_since_the_claim_is_said_first(tmp_path: Path) -> None:
    folder = tree(tmp_path / "vol", {"a": b"1"})
    (folder / "a.md5").write_text(f"{digest(folder, 'a', 'md5')}  a\n")
    source = source_of(folder)
    (folder / "a").write_bytes(b"2")
    with pytest.raises(ItemError, match="this file is not what it was at the claim"):
        await ChecksumWorker().run(
            LoneContext(tmp_path, folder, source=source), ChecksumOptions(compare=True)
        )


@pytest.mark.service
@pytest.mark.parametrize("program", ["md5sum", "sha1sum", "sha512sum", "sha256sum --tag", "cksum -a sha384"])
async def test_what_programs_write(tmp_path: Path, program: str) -> None:
    """Names with all that those programs escape."""
    if shutil.which(program.split()[0]) is None:
        pytest.skip(f"{program} is not installed")
    folder = tree(tmp_path / "vol", {b"a\nb": b"1", b"c\\d": b"2", b"\xff": b"3", "(e) = 1": b"4"})
    argv = [*program.split(), *sorted(os.listdir(os.fsencode(folder)))]
    done = subprocess.run(argv, cwd=folder, capture_output=True, check=True)
    (folder / "checksum.txt").write_bytes(done.stdout)
    ctx = await compared(tmp_path, folder)
    assert any("4 files compared" in event.detail for event in ctx.events)


@given(
    names=st.lists(
        st.binary(min_size=1).filter(lambda name: not name.startswith(b"./")), min_size=1, unique=True
    )
)
def test_names_survive_their_lines(names: list[bytes]) -> None:
    """Lines as coreutils writes them."""

    def line(name: bytes) -> bytes:
        escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
        return (b"\\" if escaped != name else b"") + b"0" * 64 + b"  " + escaped + b"\n"

    assert list(checksum_lists.parsed(b"".join(map(line, names))).digests) == names


@pytest.mark.parametrize(
    ("change", "at_fault"),
    [
        (lambda folder: (folder / "a.tif").write_bytes(b"imbge"), ["a.tif"]),
        (lambda folder: (folder / "a.tif").unlink(), []),  # nothing lies there that another could replace
    ],
)
async def test_a_changed_file_may_be_replaced(
    tmp_path: Path, change: Callable[[Path], Any], at_fault: list[str]
) -> None:
    """The error names it, so that people are offered to."""
    folder = tree(tmp_path / "in", FILES)
    (folder / "checksum.md5").write_bytes(lines(lambda hex, path: f"{hex}  {path}")(folder))
    change(folder)
    with pytest.raises(ItemError) as caught:
        await compared(tmp_path, folder)
    assert list(caught.value.files) == at_fault
