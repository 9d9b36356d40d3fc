"""unpack: archives of real programs, encrypted and not; every bad kind is said, and nothing is made of it."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import random
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dittohead.contract.worker import Done
from dittohead.model.errors import ItemError, StepError, TargetError
from dittohead.workers.unpack.options import UnpackOptions
from dittohead.workers.unpack.worker import UnpackWorker
from tests.support.archives import PASSPHRASE, flipped, member, sealed, tar_of
from tests.support.context import LoneContext
from tests.support.trees import read_tree, tree

pytestmark = pytest.mark.service

FILES = {
    "00000001.jp2": random.Random(1).randbytes(150_000),
    "00000001.txt": b"the first page\n" * 300,
    "00000002.jp2": random.Random(2).randbytes(70_001),
    "00000002.txt": b"",
}


class Rig:
    """Runs one unpack step over a folder."""

    def __init__(self, base: Path) -> None:
        self.base, self.worker = base, UnpackWorker()
        self.count = 0
        self.ctx: LoneContext

    async def run(self, files: dict[str, Any], **options: Any) -> dict[bytes, bytes]:
        """Return what the step made of a folder of these files."""
        self.count += 1
        payload = tree(self.base / f"volume{self.count}", files)
        self.ctx = LoneContext(
            self.base / f"site{self.count}",
            payload,
            secrets={"pass": PASSPHRASE, "wrong": "nonsense", "long": "two\nlines"},
        )
        return await self.again(**options)

    async def again(self, **options: Any) -> dict[bytes, bytes]:
        given = UnpackOptions.model_validate(options)
        assert isinstance(await self.worker.run(self.ctx, given), Done)
        made = read_tree(self.ctx.work)
        assert {o.path: (o.size, o.sha256) for o in self.ctx.outputs} == {
            path: (len(data), hashlib.sha256(data).hexdigest()) for path, data in made.items()
        }
        self.is_tidy()
        return made

    async def one(self, archive: bytes, name: str = "v.tar.gz.gpg", **options: Any) -> dict[bytes, bytes]:
        return await self.run({name: archive}, **options)

    async def refused(self, archive: bytes, said: str, **options: Any) -> StepError:
        """Run it; it must fail with these words and leave nothing."""
        with pytest.raises(StepError) as caught:
            await self.one(archive, **options)
        error = caught.value
        assert said in error.what, error.what
        assert error.hint
        assert PASSPHRASE not in str(error)
        assert read_tree(self.ctx.work) == {}
        assert self.ctx.outputs == []
        self.is_tidy()
        return error

    def is_tidy(self) -> None:
        left = {path.name for path in self.ctx.work.parent.iterdir()} - {
            self.ctx.step,
            f"{self.ctx.step}.log",
        }
        assert not left

    def seal(self, data: bytes, *more: str) -> bytes:
        return sealed(data, self.base / "sealer", PASSPHRASE, *more)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def as_bytes(files: dict[str, bytes]) -> dict[bytes, bytes]:
    return {os.fsencode(name): data for name, data in files.items()}


# -- sound ones --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("encrypted", [False, True])
async def test_members_come_out_as_they_went_in(rig: Rig, mode: str, encrypted: bool) -> None:
    """With MD5 and SHA-256 of each; archive and decrypted archive stand in the events."""
    plain = tar_of(FILES, mode)
    archive = rig.seal(plain) if encrypted else plain
    assert await rig.one(archive, credential="pass" if encrypted else "") == as_bytes(FILES)
    for output in rig.ctx.outputs:
        assert output.detail["md5"] == hashlib.md5(FILES[output.path.decode()]).hexdigest()
        assert output.source == b"v.tar.gz.gpg"
    told = " ".join(event.detail for event in rig.ctx.events)
    assert hashlib.sha256(archive).hexdigest() in told
    assert hashlib.sha256(plain).hexdigest() in told
    assert ("decrypted, integrity confirmed" in told) is encrypted
    assert PASSPHRASE not in told


@pytest.mark.parametrize("format", ["v7", "ustar", "pax", "gnu", "oldgnu"])
async def test_archives_of_gnu_tar(rig: Rig, format: str, tmp_path: Path) -> None:
    """In all its formats, with directories, long names and names that are not ASCII."""
    files: dict[str, Any] = {"a": b"1", "sub": {"b": b"2" * 70_000, "é.txt": b"3"}}
    if format in ("pax", "gnu", "oldgnu"):
        files["n" * 120] = b"long"
    tree(tmp_path / "in", files)
    argv = ["tar", f"--format={format}", "-C", tmp_path / "in", "-czf", tmp_path / "a.tgz", "."]
    subprocess.run(argv, check=True)
    expected = read_tree(tmp_path / "in")
    assert await rig.one((tmp_path / "a.tgz").read_bytes(), "a.tgz", members=["**"]) == expected
    with pytest.raises(ItemError, match="not among those that are expected"):
        await rig.one((tmp_path / "a.tgz").read_bytes(), "a.tgz")


@pytest.mark.parametrize("more", [["--cipher-algo", "CAST5"], ["--armor"], ["--compress-algo", "zip"]])
async def test_messages_of_other_kinds(rig: Rig, more: list[str]) -> None:
    """What a sender's gpg or another program may choose."""
    assert await rig.one(rig.seal(tar_of(FILES, "w:gz"), *more), credential="pass") == as_bytes(FILES)


async def test_streams_behind_each_other_and_padding(rig: Rig) -> None:
    """As pigz and bgzip write them; tapes are padded with zeros."""
    plain = tar_of(FILES)
    for pack in (gzip.compress, bz2.compress, lzma.compress):
        halves = pack(plain[:99_999]) + pack(plain[99_999:])
        assert await rig.one(halves, "v.tar") == as_bytes(FILES)
    assert await rig.one(gzip.compress(plain + bytes(40_000)) + bytes(700), "v.tar") == as_bytes(FILES)


async def test_below_a_prefix_into_directories_of_several_archives(rig: Rig) -> None:
    """Two volumes in one folder, each below a directory of its own in its archive."""
    archive = tar_of([member("vol/", type=tarfile.DIRTYPE), member("vol/a.tif", b"1")])
    found = await rig.run(
        {"one.tar": archive, "two.tar.gz": gzip.compress(archive)}, prefix="vol", into="{stem}"
    )
    assert found == {b"one/a.tif": b"1", b"two/a.tif": b"1"}
    with pytest.raises(ItemError, match="two members have this name"):
        await rig.run({"one.tar": archive, "two.tar": archive}, prefix="vol/")
    with pytest.raises(ItemError, match="does not lie in other/"):
        await rig.run({"one.tar": archive}, prefix="other/")
    with pytest.raises(ItemError, match="cannot go to"):
        await rig.run({"...tar": archive}, prefix="vol/", into="{stem}")


async def test_only_some_members(rig: Rig) -> None:
    """Those left out are counted."""
    found = await rig.one(tar_of(FILES), members=["*.jp2"], unlisted="skip")
    assert set(found) == {b"00000001.jp2", b"00000002.jp2"}


async def test_only_decrypted(rig: Rig) -> None:
    """The archive itself is kept, after it was read to its end like the others; or both."""
    plain = tar_of(FILES, "w:gz")
    archive = rig.seal(plain)
    assert await rig.one(archive, credential="pass", keep="archive") == {b"v.tar.gz": plain}
    both = {**as_bytes(FILES), b"v.tar.gz": plain}
    assert await rig.one(archive, credential="pass", keep="both") == both
    await rig.refused(rig.seal(plain[:-8]), "truncated", credential="pass", keep="archive")
    evil = rig.seal(tar_of({"v.tar": b"1"}))
    await rig.refused(evil, "two members have this name", name="v.tar.gpg", credential="pass", keep="both")


async def test_a_list_of_checksums_among_the_members(rig: Rig) -> None:
    """All that it names, and nothing else, each with its digest: or nothing is made."""
    lines = "".join(f"{hashlib.md5(data).hexdigest()}  {name}\n" for name, data in FILES.items())
    good = {**FILES, "checksum.md5": lines.encode()}
    assert await rig.one(tar_of(good), checksums="checksum.md5") == as_bytes(good)
    assert rig.ctx.outputs[0].detail["listed_in"] == "checksum.md5"
    assert await rig.one(tar_of(good), checksums="checksum.md5", keep="archive")

    async def bad(files: dict[str, bytes], said: str) -> None:
        error = await rig.refused(tar_of(files), said, checksums="checksum.md5")
        assert "checksum.md5" in error.what

    await bad(FILES, "is not in it")
    await bad({**good, "00000003.jp2": b"x"}, "1 not in the list (00000003.jp2)")
    await bad({k: v for k, v in good.items() if k != "00000002.txt"}, "1 not there (00000002.txt)")
    await bad({**good, "00000001.txt": b"other"}, "1 with another digest (00000001.txt)")
    await bad({**good, "checksum.md5": b"no list\n"}, "line 1 is not a digest")
    await bad({**good, "checksum.md5": b""}, "it is empty")


async def test_again_leaves_the_same(rig: Rig) -> None:
    """What an earlier try left, half or whole, is removed first."""
    archive = rig.seal(tar_of(FILES, "w:gz"))
    await rig.one(archive, credential="pass")
    tree(rig.ctx.work, {"remains": b"x", "sub": {"y": b"z"}})
    tree(rig.ctx.work.parent / "step.scratch", {"files": {"half": b"x"}, "gnupg": {}})
    rig.ctx.again()
    assert await rig.again(credential="pass") == as_bytes(FILES)


# -- gpg ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data[: len(data) // 2], "gpg cannot decrypt it"),
        (lambda data: data[:-10], "gpg cannot decrypt it"),
        (lambda data: data[:40], "damaged"),
        (lambda data: flipped(data, len(data) // 2), "its bytes were changed"),
        (lambda data: flipped(data, -3), "its bytes were changed"),
        (lambda data: data + b"garbage", "something follows the end of the encrypted message"),
        (lambda data: data + bytes(600), "something follows the end of the encrypted message"),
        (lambda data: data + data, "damaged"),
        (lambda data: b"", "it is empty"),
        (lambda data: b"\n<!DOCTYPE html><title>Sign in</title>", "a web page"),
        (lambda data: b"{}", "no tar and no zip archive"),
    ],
    ids=["half", "cut", "head", "flip", "flip-mdc", "garbage", "zeros", "twice", "empty", "page", "json"],
)
async def test_damaged_messages(rig: Rig, change: Callable[[bytes], bytes], said: str) -> None:
    """Gpg gives out nearly all of some of them before it says that they are not sound."""
    await rig.refused(change(rig.seal(tar_of(FILES, "w:gz"))), said, credential="pass")
    # Of lengths that it did not know, or of what it compresses itself, gpg says another thing.
    loosely = "damaged" if said.startswith(("gpg", "something", "its bytes")) else said
    for stream in (False, True):
        other = sealed(tar_of(FILES), rig.base / "sealer", stream=stream)
        await rig.refused(change(other), loosely, credential="pass")


async def test_a_message_that_is_not_encrypted_or_not_protected(rig: Rig, tmp_path: Path) -> None:
    """Gpg itself decrypts the first without a word, and ends well."""
    home = tmp_path / "h"
    home.mkdir(mode=0o700)
    base = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--no-autostart"]
    plain = tar_of(FILES, "w:gz")
    stored = subprocess.run([*base, "--store"], input=plain, capture_output=True, check=True).stdout
    await rig.refused(stored, "no message that gpg has encrypted", credential="pass")
    weak = rig.seal(plain, "--rfc2440", "--disable-mdc")
    await rig.refused(weak, "without protection of its integrity", credential="pass")


async def test_a_message_for_a_key(rig: Rig, tmp_path: Path) -> None:
    """It is not a wrong passphrase."""
    home = tmp_path / "k"
    home.mkdir(mode=0o700)
    base = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--passphrase", ""]
    try:
        subprocess.run([*base, "--quick-gen-key", "a@example.org", "rsa2048", "encr"], check=True)
        argv = [*base, "--trust-model", "always", "-r", "a@example.org", "--encrypt"]
        sent = subprocess.run(argv, input=tar_of(FILES), capture_output=True, check=True).stdout
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=True)
    await rig.refused(sent, "for somebody's key", credential="pass")


async def test_a_wrong_passphrase_of_one_and_of_all(rig: Rig) -> None:
    """One fails its folder; one that opens nothing pauses what needs it, and no more folders fail."""
    archives = [rig.seal(tar_of({"a": b"%d" % n})) for n in range(5)]
    for archive in archives[:2]:
        error = await rig.refused(archive, "does not open it", credential="wrong")
        assert isinstance(error, ItemError)
        assert 'the passphrase "wrong" does not open' in error.what
    for archive in archives[2:4]:
        error = await rig.refused(archive, "opens none of", credential="wrong")
        assert isinstance(error, TargetError)
    options = UnpackOptions(credential="wrong")
    assert rig.worker.target(options) == "passphrase wrong"
    assert await rig.one(archives[4], credential="pass")  # another credential is another passphrase
    for _ in range(4):
        other = sealed(tar_of(FILES), rig.base / "sealer", "another")
        error = await rig.refused(other, "which opens others, does not open it", credential="pass")
        assert isinstance(error, ItemError)


async def test_without_a_passphrase_or_with_what_is_none(rig: Rig) -> None:
    """Nothing is decrypted by an empty one."""
    archive = rig.seal(tar_of(FILES))
    await rig.refused(archive, "the step has no passphrase")
    await rig.refused(archive, "is not a passphrase", credential="long")


async def test_gpg_is_given_nothing_of_its_users(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither options nor agent; the passphrase stands in no argument and no variable."""
    archive, seen = rig.seal(tar_of(FILES)), tmp_path / "seen"
    script = tmp_path / "bin" / "gpg"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\n(echo "$@"; env) >> {seen}\nexec /usr/bin/gpg "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("GNUPGHOME", str(tmp_path / "nowhere"))
    await rig.one(archive, credential="pass")
    said = seen.read_text()
    assert "--no-options" in said
    assert PASSPHRASE not in said
    assert "nowhere" not in said
    running = subprocess.run(["pgrep", "-f", f"gpg-agent.*{tmp_path}"], capture_output=True, check=False)
    assert not running.stdout


async def test_doctor_and_check(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A passphrase that is not there, and a gpg that is not."""

    async def said(credential: str) -> list[tuple[bool, str]]:
        def secret(name: str) -> str:
            if name != "pass":
                raise ItemError(f'there is no credential "{name}"')
            return PASSPHRASE

        return [line async for line in rig.worker.doctor(UnpackOptions(credential=credential), secret)]

    assert [ok for ok, _ in await said("pass")] == [True, True]
    assert [ok for ok, _ in await said("other")] == [False, True]
    assert rig.worker.check(UnpackOptions(credential="pass")) == []
    monkeypatch.setenv("PATH", "/nowhere")
    assert "apt-get install gpg" in rig.worker.check(UnpackOptions(credential="pass"))[0]
    assert [ok for ok, _ in await said("pass")] == [True, False]


# -- streams, tar ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data[:-4], "its gzip stream is truncated"),
        (lambda data: data[:-9], "its gzip stream is truncated"),
        (lambda data: data[: len(data) // 2], "its gzip stream is truncated"),
        (lambda data: flipped(data, -6), "its gzip stream is damaged"),  # the CRC
        (lambda data: flipped(data, -2), "its gzip stream is damaged"),  # the length
        (lambda data: flipped(data, len(data) // 2), "damaged"),
        (lambda data: data + b"garbage", "something follows the end of the gzip stream"),
        (lambda data: data + bytes(99) + b"x", "something follows the end of the gzip stream"),
    ],
)
@pytest.mark.parametrize("encrypted", [False, True])
async def test_damaged_streams(
    rig: Rig, change: Callable[[bytes], bytes], said: str, encrypted: bool
) -> None:
    """Sound as a message, and yet not whole: what was encrypted was damaged before."""
    archive = change(tar_of(FILES, "w:gz"))
    error = await rig.refused(rig.seal(archive) if encrypted else archive, said, credential="pass")
    assert error.files == ["v.tar.gz.gpg"]  # which people are offered to replace


@pytest.mark.parametrize("cut", [lzma.compress, bz2.compress])
async def test_other_streams_that_are_cut(rig: Rig, cut: Callable[[bytes], bytes]) -> None:
    """bzip2 and xz have trailers too."""
    whole = cut(tar_of(FILES))
    await rig.refused(whole[:-5], "stream is truncated")
    await rig.refused(flipped(whole, len(whole) // 2), "damaged")
    await rig.refused(whole + b"xx", "something follows the end of the")


def whole_tar() -> bytes:
    """An archive without the padding that follows its end."""
    data = tar_of(FILES)
    return data.rstrip(b"\0") + bytes(-len(data.rstrip(b"\0")) % 512) + bytes(1024)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data[:-512], "one of its two blocks of zeros is missing"),
        (lambda data: data[:-1024], "truncated"),
        (lambda data: data[: len(data) // 2], "truncated"),
        (lambda data: data[:700], "truncated"),
        (lambda data: data + b"garbage", "something follows the end of the tar archive"),
        (lambda data: data + tar_of(FILES), "something follows the end of the tar archive"),
        (lambda data: data[:-512] + tar_of(FILES), "a member follows half of the end mark"),
        (
            lambda data: flipped(data, 512 + 150_016 + 10),
            "the header at byte 150,528 of the tar archive is damaged",
        ),
    ],
)
async def test_damaged_tar_archives(rig: Rig, change: Callable[[bytes], bytes], said: str) -> None:
    """GNU tar and Python's take most of these as an archive's end, without an error."""
    assert await rig.one(whole_tar()) == as_bytes(FILES)
    await rig.refused(change(whole_tar()), said)
    await rig.refused(gzip.compress(change(whole_tar())), said)


@pytest.mark.parametrize("at", range(0, 1024, 37))
async def test_a_flipped_bit_is_seen_or_makes_no_difference(rig: Rig, at: int) -> None:
    """In a header without compression or encryption only its own checksum tells; in content nothing does."""
    data = flipped(whole_tar(), at, 4)
    if at < 512:
        await rig.refused(data, "")
    else:
        changed = (await rig.one(data))[b"00000001.jp2"]
        assert changed == flipped(FILES["00000001.jp2"], at - 512, 4)


@pytest.mark.parametrize(
    ("evil", "said"),
    [
        (member("../x", b"1"), "leads out of the directory"),
        (member("a/../../x", b"1"), "leads out of the directory"),
        (member("./..", type=tarfile.DIRTYPE), "leads out of the directory"),
        (member("/etc/x", b"1"), "an absolute name"),
        (member("//x", b"1"), "an absolute name"),
        (member("a//b", b"1"), "not one that a file can have"),
        (member("a/./b", b"1"), "not one that a file can have"),
        (member("l", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "a member is a symbolic link"),
        (member("l", type=tarfile.LNKTYPE, linkname="00000001.jp2"), "a member is a hard link"),
        (member("d", type=tarfile.CHRTYPE, devmajor=1, devminor=3), "a member is a character device"),
        (member("d", type=tarfile.BLKTYPE), "a member is a block device"),
        (member("d", type=tarfile.FIFOTYPE), "a member is a FIFO"),
        (member("d", type=b"Z"), "a member is a thing of an unknown kind"),
        (member("d", type=tarfile.GNUTYPE_SPARSE), "a member is a sparse file"),
        (member("s", pax_headers={"GNU.sparse.major": "1"}), "a member is a sparse file"),
        (member("x", pax_headers={"path": "../../x"}), "leads out of the directory"),
        (member("x", pax_headers={"path": "/x"}), "an absolute name"),
        (member("00000001.jp2", b"1"), "two members have this name"),
        (member("./00000001.jp2", b"1"), "two members have this name"),
        (member("00000001.JP2", b"1"), "are one file where capital letters or accents do not count"),
        (member("00000001.txt/x", b"1"), "cannot hold this member"),
        (member("n" * 300, b"1"), "cannot hold this member"),
        (member("d/" * 1800 + "x", b"1"), "too long, or nested too deeply"),
    ],
)
async def test_evil_members(rig: Rig, evil: tuple[tarfile.TarInfo, bytes], said: str) -> None:
    """Nothing is made of those that came before; nothing is written anywhere else."""
    before = set(rig.base.rglob("*"))
    data = tar_of([*(member(*item) for item in FILES.items()), evil, member("last", b"2")])
    error = await rig.refused(data, said, members=["**"])
    assert error.where == "v.tar.gz.gpg"
    made = {path for path in set(rig.base.rglob("*")) - before if path.is_file()}
    assert {path.name for path in made} == {"v.tar.gz.gpg"}


async def test_names_that_differ_by_accents_alone(rig: Rig) -> None:
    """Precomposed and not; both can be kept where that is meant."""
    both = {"\u00e9.txt": b"1", "e\u0301.txt": b"2", "A": b"3", "a": b"4"}
    await rig.refused(tar_of(both), "are one file where")
    assert await rig.one(tar_of(both), alike="keep") == as_bytes(both)
    await rig.refused(tar_of([member("a", b"1"), member("a", b"1")]), "two members", alike="keep")


async def test_names_that_are_not_text(rig: Rig) -> None:
    """Kept to the byte, as every name is."""
    names = [b"\xff\xfe", b"line\nbreak", b"-dash", b" ", b"a:b", b"\xc3\xa9 first of all"]
    files = [(member(os.fsdecode(name), name)) for name in names[::-1]]
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT):
        data = tar_of(files, format=format)
        assert await rig.one(data) == {name: name for name in names}
    error = await rig.refused(tar_of(files), "not among", members=["-*"])
    assert "\n" not in str(error)


async def test_bounds(rig: Rig) -> None:
    """Too many, too large, too much, and a compression bomb, which is not unpacked to its end."""
    await rig.refused(tar_of(FILES), "more than 3 members", max_members=3)
    await rig.refused(tar_of(FILES), "a member has 146 KiB, and 100 KiB is the most", max_member="100KiB")
    await rig.refused(tar_of(FILES), "more than 200 KiB come out of it", max_size="200KiB")
    huge = tar_of({"zeros": bytes(100 << 20)}, "w:gz")
    assert len(huge) < 200_000
    for archive in (
        huge,
        rig.seal(huge),
        rig.seal(tar_of({"zeros": bytes(100 << 20)}), "--compress-algo", "zlib"),
    ):
        error = await rig.refused(archive, "", credential="pass")
        assert "max_ratio" in error.hint
    headers = [member("x", pax_headers={"comment": "c" * (2 << 20)})]
    await rig.refused(tar_of(headers), "an extended header of")


async def test_an_archive_that_holds_nothing(rig: Rig) -> None:
    """An empty archive is a mistake of somebody's."""
    for data in (bytes(10240), gzip.compress(bytes(10240)), tar_of([member("d", type=tarfile.DIRTYPE)])):
        await rig.refused(data, "holds no files", members=["**"])


async def test_what_is_compressed_and_no_archive(rig: Rig) -> None:
    """A single file that was compressed, or an archive that was encrypted twice."""
    await rig.refused(gzip.compress(b"text" * 999), "is not a tar archive")
    await rig.refused(rig.seal(rig.seal(tar_of(FILES))), "encrypted once more", credential="pass")
    await rig.refused(b"\x28\xb5\x2f\xfd" + bytes(99), "zstd, which is not read here")


async def test_files_beside_archives(rig: Rig) -> None:
    """Left out only where that was said."""
    files = {"v.TAR": tar_of(FILES), "notes.txt": b"x"}
    with pytest.raises(ItemError, match="1 file beside the archives would be left out, such as notes.txt"):
        await rig.run(files, match=["*.tar"])
    assert await rig.run(files, match=["*.tar"], others="skip") == as_bytes(FILES)
    with pytest.raises(ItemError, match="there is no archive here"):
        await rig.run({"notes.txt": b"x"}, match=["*.tar"], others="skip")


async def test_an_archive_that_changed_since_the_claim(rig: Rig) -> None:
    """It is sound, and yet another."""
    for archive, other in (
        (tar_of(FILES), tar_of({"a": b"1"})),
        (rig.seal(tar_of(FILES)), rig.seal(tar_of({"a": b"1"}))),
    ):
        await rig.one(archive, credential="pass")
        (rig.ctx.payload / "v.tar.gz.gpg").write_bytes(other)
        rig.ctx.again()
        with pytest.raises(ItemError, match="not what it was at the claim"):
            await rig.again(credential="pass")
        assert read_tree(rig.ctx.work) == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
async def test_a_full_disk_is_no_fault_of_the_archive(rig: Rig) -> None:
    """The error is the disk's, for which the engine waits; nothing is left in its way."""
    site = rig.base / "site1"
    site.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", site], check=True)
    try:
        archive = rig.seal(tar_of({"a": random.Random(1).randbytes(6 << 20)}, "w:gz"))
        with pytest.raises(OSError, match="No space left on device"):
            await rig.one(archive, credential="pass")
        assert read_tree(rig.ctx.work) == {}
        rig.is_tidy()
        subprocess.run(["mount", "-o", "remount,size=50m", site], check=True)
        rig.ctx.again()
        assert len(await rig.again(credential="pass")) == 1
    finally:
        subprocess.run(["umount", "-l", site], check=True)
