"""The page on Google Books: its package is installed, and brings volumes from a simulated GRIN to a bucket."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.docs.installed import install
from tests.docs.pages import DOCS, blocks
from tests.docs.shell import Shell, command
from tests.support.daemon import Site, site
from tests.support.grin import PASSPHRASE, TOKEN, Grin, grin, sealed, volume
from tests.support.s3_server import S3Server

pytestmark = [pytest.mark.service, pytest.mark.timeout(240)]

PAGE = DOCS / "grin.md"


@dataclass
class Library:
    here: Site
    grin: Grin
    client: Any
    shell: Shell
    seal: Any

    def want(self, *barcodes: str) -> None:
        for barcode in barcodes:
            (self.here.root / "wanted" / barcode).touch()

    def objects(self) -> dict[str, bytes]:
        client = self.client
        listed = client.list_objects_v2(Bucket="google-books").get("Contents", [])
        return {
            one["Key"]: client.get_object(Bucket="google-books", Key=one["Key"])["Body"].read()
            for one in listed
        }


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install("grin", tmp_path_factory.mktemp("example"))


@pytest.fixture
def library(tmp_path: Path, installed: Path, examples: None) -> Iterator[Library]:
    with grin() as far, S3Server() as store, site(tmp_path / "root", "") as here:
        client = store.client()
        client.create_bucket(Bucket="google-books")
        (here.root / "credentials").mkdir()
        (here.root / "credentials" / "grin-token").write_text(TOKEN)
        (here.root / "credentials" / "grin-passphrase").write_text(PASSPHRASE)
        (here.root / "wanted").mkdir()
        (text,) = (block.text for block in blocks(PAGE) if block.language == "yaml")
        for before, after in {
            "/srv/dittohead": str(here.root),
            "https://books.google.com/libraries/LIB": far.url,
            "/opt/dittohead/bin/grin-unpack": str(installed / "bin" / "grin-unpack"),
            "bucket: google-books": f"bucket: google-books, endpoint_url: {store.url}",
            "every: 1h": "every: 200ms\n      gap: 0",
        }.items():
            assert before in text
            text = text.replace(before, after)
        here.config.write_text(text + "space: {floor: 0}\nretry: {first: 10ms, most: 20ms}\n")
        here.env |= {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "PYTHONPATH": str(installed),
        }
        shell = Shell(tmp_path / "shell", here.config)
        shell.env |= here.env | {"PATH": shell.env["PATH"]}
        made = Library(here, far, client, shell, lambda files: sealed(files, tmp_path / "g"))
        yield made
        for key in made.objects():  # what moto keeps is the process's, not the server's
            client.delete_object(Bucket="google-books", Key=key)
        client.delete_bucket(Bucket="google-books")


def test_asked_for_converted_fetched_unpacked_stored_and_settled(library: Library) -> None:
    """With a cut in mid-fetch, a page in place of a list, and one volume that is not given out."""
    here, far = library.here, library.grin
    one, two = "32101081977728", "32101064781634"
    far.available, far.throttled = {one, two}, 1
    (typed,) = (block.text for block in blocks(PAGE) if "dittohead source sync" in block.text)
    here.start()
    library.want("39999")
    said = library.shell.run(typed.replace("/srv/dittohead", str(here.root))).stdout
    assert "google: grin" in said
    here.until(lambda: far.in_process == [two, one])
    far.cut_after = 5000
    far.convert(one, library.seal(volume(one)))
    far.convert(two, library.seal(volume(two, pages=3)))
    here.until(lambda: sorted(os.listdir(here.root / "wanted")) == ["39999"])
    files = {
        f"{code}/{name}": data for code, n in ((one, 2), (two, 3)) for name, data in volume(code, n).items()
    }
    stored = library.objects()
    lists = {key: stored.pop(key).decode() for key in list(stored) if key.endswith("manifest-sha256.txt")}
    assert stored == files
    assert {key.partition("/")[0] for key in lists} == {one, two}
    for key, data in files.items():
        code, _, name = key.partition("/")
        assert f"{hashlib.sha256(data).hexdigest()}  {name}\n" in lists[f"{code}/manifest-sha256.txt"]
    assert "bytes=5000-" in far.ranges
    assert (
        next(line["reason"] for line in here.events("source.unreadable"))
        == "GRIN says: Not allowed to be downloaded"
    )
    assert sorted(far.requested) == sorted(["39999", one, two])  # each once
    everything = here.log.read_text() + json.dumps(here.receipts())
    assert TOKEN not in everything
    assert PASSPHRASE not in everything


def test_one_that_has_left_the_pool_is_asked_for_again(library: Library) -> None:
    """Between the round that saw it and the fetch."""
    here, far = library.here, library.grin
    far.available = {"1"}
    archive = library.seal(volume("1"))
    far.converted["LIB_1.tar.gz.gpg"] = archive
    library.want("1")

    class Leaving(dict):  # type: ignore[type-arg]
        """There at the HEAD; gone at the GET."""

        def __contains__(self, name: object) -> bool:
            there = super().__contains__(name)
            if there and far.asked[-1][0] == "GET" and name == "LIB_1.tar.gz.gpg":
                del self[name]
                return False
            return there

    far.converted = Leaving(far.converted)
    here.start()
    here.until(lambda: far.in_process == ["1"])
    assert here.events("source.gone")
    far.converted = {}
    far.convert("1", archive)
    here.until(lambda: os.listdir(here.root / "wanted") == [])
    assert "1/checksum.md5" in library.objects()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda seal: seal(volume("1", wrong="00000001.txt")), "00000001.txt the first"),
        (
            lambda seal: seal({k: v for k, v in volume("1").items() if k != "00000002.html"}),
            "00000002.html the first",
        ),
        (lambda seal: seal(volume("1"))[:-40], "LIB_1.tar.gz.gpg: gpg: "),
        (lambda seal: seal({"../../x": b"", **volume("1")}), "no plain file"),
        (lambda seal: seal({"checksum.md5": b""}), "not every page"),
    ],
    ids=["changed", "missing", "cut", "climbing", "empty"],
)
def test_a_volume_that_is_not_sound_is_said_to_be(
    change: Any, said: str, installed: Path, tmp_path: Path
) -> None:
    """The last line says why, the status says that it is the volume."""
    folder, work = tmp_path / "folder", tmp_path / "work"
    folder.mkdir()
    work.mkdir()
    (folder / "LIB_1.tar.gz.gpg").write_bytes(change(lambda files: sealed(files, tmp_path / "g")))
    ended = subprocess.run(
        [installed / "bin" / "grin-unpack", folder, work],
        env={**os.environ, "GRIN_PASSPHRASE": PASSPHRASE},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == os.EX_DATAERR
    assert said in ended.stdout
    assert not (tmp_path / "x").exists()
    assert PASSPHRASE not in ended.stdout + ended.stderr


def test_a_wrong_passphrase_an_expired_token(library: Library) -> None:
    """One fails its folder, and its file stays; the other holds the source back, and nothing else."""
    here, far = library.here, library.grin
    (here.root / "credentials" / "grin-passphrase").write_text("wrong one")
    far.converted["LIB_1.tar.gz.gpg"] = library.seal(volume("1"))
    library.want("1")
    here.start()
    here.until((here.root / "failed" / "1").exists)
    assert "decryption failed" in (here.root / "failed" / "1.reason.txt").read_text()
    assert os.listdir(here.root / "wanted") == ["1"]
    far.token = "ya29.another"
    here.until(
        lambda: [line for line in here.events("source.failed") if "not good any more" in line["error"]]
    )
    (here.root / "credentials" / "grin-token").write_text(far.token)
    (here.root / "credentials" / "grin-passphrase").write_text(PASSPHRASE)
    command(here.config, "retry", "1")
    here.until(lambda: os.listdir(here.root / "wanted") == [])
