"""A volume through a running daemon: unpacked, compared, packed and delivered; killed; with a wrong passphrase."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dittohead.system import fail_points
from dittohead.system.process import sweep
from tests.support.archives import PASSPHRASE, sealed, tar_of
from tests.support.daemon import Site, site
from tests.support.trees import read_tree
from tests.workers.test_google_books import BARCODE, listed, volume

pytestmark = [pytest.mark.rest, pytest.mark.service, pytest.mark.timeout(240)]


CONFIG = """
root: .
space: {floor: 0}
retry: {first: 10ms, most: 20ms}
pipelines:
  volumes:
    match: "(?P<barcode>[A-Z0-9]+)"
    steps:
      - unpack: {credential: grin-passphrase, checksums: checksum.md5}
      - google-books: {from: unpack, barcode: "{barcode}"}
      - pack: {path: "{barcode}.tar", from: unpack}
      - rsync: {name: pages, from: unpack, to: "OUT/{name}/pages/", mkpath: true}
      - rsync: {name: lists, from: google-books, to: "OUT/{name}/lists/", mkpath: true}
      - rsync: {name: store, from: pack, to: "OUT/{name}/", mkpath: true}
"""


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    out = tmp_path / "out"
    out.mkdir()
    with site(tmp_path / "root", CONFIG.replace("OUT", str(out))) as made:
        (made.root / "credentials").mkdir()
        (made.root / "credentials" / "grin-passphrase").write_text(PASSPHRASE)
        yield made


def is_delivered(out: Path, files: dict[str, bytes], name: str = BARCODE) -> None:
    assert read_tree(out / name / "pages") == {key.encode(): data for key, data in files.items()}
    assert len(read_tree(out / name / "lists")) == 3
    with tarfile.open(fileobj=io.BytesIO((out / name / f"{name}.tar").read_bytes())) as tar:
        assert tar.getnames() == sorted(files)


def test_a_volume_is_unpacked_compared_packed_and_delivered(here: Site, tmp_path: Path) -> None:
    """The receipt holds the digests of the archive, of what was in it, and of each member, with its MD5."""
    files = listed(volume())
    plain = tar_of(files, "w:gz")
    archive = sealed(plain, tmp_path / "g")
    here.start()
    here.drop(BARCODE, {f"PRNC_{BARCODE}.tar.gz.gpg": archive})
    here.until((here.root / "done" / BARCODE).exists)
    is_delivered(tmp_path / "out", files)
    (receipt,) = here.receipts()
    details = " ".join(event["detail"] for event in receipt["events"])
    assert hashlib.sha256(archive).hexdigest() in details
    assert hashlib.sha256(plain).hexdigest() in details
    assert {"decryption", "unpacking", "packing"} <= {event["type"] for event in receipt["events"]}
    outputs = {output["path"]: output for output in receipt["outputs"] if output["step"] == "unpack"}
    for name, data in files.items():
        assert outputs[name]["sha256"] == hashlib.sha256(data).hexdigest()
        assert outputs[name]["detail"]["md5"] == hashlib.md5(data).hexdigest()
    assert PASSPHRASE not in here.log.read_text() + (here.root / "config.yaml").read_text() + str(receipt)
    said = here.run("verify", BARCODE).stdout
    assert BARCODE in said


def test_plan_and_doctor_and_mistakes(here: Site, tmp_path: Path) -> None:
    """What would be done; whether gpg and the passphrase are there; where config.yaml is wrong."""
    folder = tmp_path / BARCODE
    folder.mkdir()
    (folder / "v.tar.gz.gpg").write_bytes(sealed(tar_of(listed(volume())), tmp_path / "g"))
    said = here.run("plan", str(folder)).stdout
    assert "the members of v.tar.gz.gpg" in said
    assert f"{BARCODE}_ocr.jsonl" in said
    assert f"{BARCODE}.tar" in said
    doctor = here.run("doctor", check=False).stdout
    assert 'the passphrase "grin-passphrase" is there' in doctor
    assert "decrypts" in doctor
    text = here.config.read_text()
    for wrong, words in (
        ("checksums: checksum.md5, members: ['[a']", ""),
        ("checksums: checksum.md5, unlisted: skip", "the list names all members"),
        ("checksum: checksum.md5", 'Did you mean "checksums"'),
        ("into: /tmp", "write a directory below"),
        ("prefix: ../x", "write a directory inside"),
    ):
        here.config.write_text(text.replace("checksums: checksum.md5", wrong))
        refused = here.run("check", check=False)
        if not words:
            assert refused.returncode == 0, refused.stdout  # a bracket that opens nothing is itself
            continue
        assert refused.returncode == os.EX_CONFIG
        assert words in refused.stdout + refused.stderr
        assert "config.yaml:9:" in refused.stdout + refused.stderr


@pytest.mark.parametrize("point", fail_points.UNPACK_POINTS)
@pytest.mark.parametrize("how", ["kill", "group"])
def test_a_death_harms_nothing(here: Site, tmp_path: Path, point: str, how: str) -> None:
    """What a killed try left counts for nothing; gpg does not outlive its daemon for long."""
    files = listed(volume())
    here.arm(f"{point}:1:{how}", MORTAL_REACHED=str(tmp_path / "reached"))
    here.start()
    here.drop(BARCODE, {"v.tar.gz.gpg": sealed(tar_of(files, "w:gz"), tmp_path / "g")})
    assert here.process is not None
    here.process.wait(60)
    assert list((tmp_path / "out").iterdir()) == []
    here.env["MORTAL_DIES"] = ""
    here.start()
    here.until((here.root / "done" / BARCODE).exists)
    is_delivered(tmp_path / "out", files)
    (home,) = (here.root / "work").iterdir() if any((here.root / "work").iterdir()) else (None,)
    left = [] if home is None else [path.name for path in home.iterdir() if "scratch" in path.name]
    assert left == []


def test_killed_while_gpg_decrypts(here: Site, tmp_path: Path) -> None:
    """A gpg that hangs is ended by the next start, and its half is not counted."""
    slow = tmp_path / "bin" / "gpg"
    slow.parent.mkdir()
    slow.write_text(f"#!/bin/sh\ntouch {tmp_path}/begun\nhead -c 2000 >&2; exec sleep 1000\n")
    slow.chmod(0o755)
    path = here.env["PATH"]
    here.env["PATH"] = f"{slow.parent}:{path}"
    files = listed(volume())
    here.start()
    here.drop(BARCODE, {"v.tar.gz.gpg": sealed(tar_of(files, "w:gz"), tmp_path / "g")})
    here.until((tmp_path / "begun").exists)
    here.kill()
    assert list(here.root.glob("work/*/unpack.scratch/gnupg"))
    here.env["PATH"] = path
    here.start()
    here.until((here.root / "done" / BARCODE).exists)
    is_delivered(tmp_path / "out", files)
    assert sweep(here.root.resolve() / "nowhere") == []
    assert not list(here.root.glob("work/*/unpack.scratch"))


def test_a_step_that_is_frozen_ends_its_gpg(here: Site, tmp_path: Path) -> None:
    """One that reads nothing and says nothing, too."""
    slow = tmp_path / "bin" / "gpg"
    slow.parent.mkdir()
    slow.write_text(
        f"#!/bin/sh\necho $$ > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid\nexec sleep 1000\n"
    )
    slow.chmod(0o755)
    here.env["PATH"] = f"{slow.parent}:{here.env['PATH']}"
    here.start()
    archive = sealed(tar_of({"a": os.urandom(5 << 20)}), tmp_path / "g")
    here.drop(BARCODE, {"v.tar.gz.gpg": archive})
    pid = int(here.until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))
    here.run("freeze", BARCODE, "--reason", "try")
    here.until(lambda: not Path(f"/proc/{pid}").exists())
    here.until(lambda: not list(here.root.glob("work/*/unpack.scratch")))


def test_a_passphrase_that_opens_nothing_fails_two_and_holds_the_rest(here: Site, tmp_path: Path) -> None:
    """When it is corrected, what waits goes on by itself."""
    (here.root / "credentials" / "grin-passphrase").write_text("a wrong one")
    names = [f"3210{n}" for n in range(5)]
    files = {name: listed(volume(id=f"PRNC_{name}", name=f"PRNC_{name}.xml", pages=1)) for name in names}
    here.start()
    for name in names:
        here.drop(name, {"v.tar.gz.gpg": sealed(tar_of(files[name], "w:gz"), tmp_path / "g")})
    here.until(lambda: [row for row in here.json("list") if row["state"] == "paused"])
    failed = [name for name in names if (here.root / "failed" / name).exists()]
    assert len(failed) == 2
    reason = (here.root / "failed" / f"{failed[0]}.reason.txt").read_text()
    assert "does not open it" in reason
    (here.root / "credentials" / "grin-passphrase").write_text(PASSPHRASE)
    waiting = [name for name in names if name not in failed]
    here.until(
        lambda: all((here.root / "done" / name).exists() for name in waiting) or _poked(here, waiting), 100
    )
    for name in waiting:
        is_delivered(tmp_path / "out", files[name], name)


def _poked(here: Site, names: list[str]) -> bool:
    for name in names:
        if not (here.root / "done" / name).exists():
            here.run("poke", name, check=False)
    return False
