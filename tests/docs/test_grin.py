"""The page on Google Books: what it types brings volumes from a simulated GRIN to a bucket."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import DOCS, blocks
from tests.docs.shell import Shell, command
from tests.support.daemon import Site, site
from tests.support.grin import PASSPHRASE, Server, sealed, serving, volume
from tests.support.grin.world import etag
from tests.support.ports import free_port
from tests.support.s3_server import S3Server
from tests.support.wheel import program

pytestmark = [pytest.mark.rest, pytest.mark.service, pytest.mark.timeout(240)]

PAGE = DOCS / "grin.md"


@dataclass
class Library:
    here: Site
    grin: Server
    client: Any
    shell: Shell
    seal: Any
    endpoint: str  #: of the bucket's store

    def objects(self) -> dict[str, bytes]:
        client = self.client
        listed = client.list_objects_v2(Bucket="google-books").get("Contents", [])
        return {
            one["Key"]: client.get_object(Bucket="google-books", Key=one["Key"])["Body"].read()
            for one in listed
        }

    def typed(self, holding: str) -> list[str]:
        """The commands of the page's block that holds this text, without what an installation does."""
        (text,) = (b.text for b in blocks(PAGE) if b.language == "sh" and holding in b.text)
        return [line for line in text.splitlines() if line.strip()]

    def authorize(self) -> str:
        """Type the page's command, and consent in a browser on the same machine."""
        (line,) = (line for line in self.typed("source authorize") if "authorize" in line)
        words = shlex.split(line.removeprefix("sudo -u dittohead "))
        with subprocess.Popen(
            [*program(), "--config", str(self.here.config), *words[1:]],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=self.here.env,
        ) as running:  # fmt: skip
            assert running.stdout is not None
            for shown in running.stdout:
                if shown.startswith("http"):
                    with urllib.request.urlopen(shown.strip()) as page:  # follows to the port
                        assert b"You may close this page" in page.read()
                    break
            said = running.stdout.read()
        assert running.returncode == 0, said
        return said


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with serving() as far, S3Server() as store, site(tmp_path / "root", "") as here:
        far.world.prefix = True
        far.sign_in.now = time.time()
        client = store.client()
        client.create_bucket(Bucket="google-books")
        (here.root / "credentials").mkdir()
        (here.root / "credentials" / "grin-client").write_text(far.sign_in.client_file(far.url))
        (here.root / "credentials" / "grin-passphrase").write_text(PASSPHRASE)
        (text,) = (block.text for block in blocks(PAGE) if block.language == "yaml")
        more = f"url: {far.url}/libraries, rate: 1000, every: 200ms, redirect_port: {free_port()}"
        for before, after in {
            "/srv/dittohead": str(here.root),
            "ahead: 20": f"ahead: 20, {more}",
            "bucket: google-books": f"bucket: google-books, endpoint_url: {store.url}",
        }.items():
            assert before in text
            text = text.replace(before, after)
        here.config.write_text(text + "space: {floor: 0}\nretry: {first: 10ms, most: 20ms}\n")
        here.env |= {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }
        shell = Shell(tmp_path / "shell", here.config)
        shell.env |= here.env | {"PATH": shell.env["PATH"]}
        made = Library(here, far, client, shell, lambda files: sealed(files, tmp_path / "g"), store.url)
        yield made
        for key in made.objects():  # what moto keeps is the process's, not the server's
            client.delete_object(Bucket="google-books", Key=key)
        client.delete_bucket(Bucket="google-books")


def entry(library: Library, barcode: str) -> dict[str, Any]:
    return json.loads(command(library.here.config, "source", "show", "google", barcode, "--json"))


def proves(library: Library, barcode: str, files: dict[str, bytes]) -> None:
    """The receipt of a stored volume says where each byte came from, and where it lies."""
    (receipt,) = [one for one in library.here.receipts() if one["name"] == barcode]
    archive = library.grin.world.books[barcode].archive
    assert archive is not None
    (claimed,) = receipt["manifest"]["files"]
    assert (claimed["path"], claimed["sha256"]) == (
        f"LIB_{barcode}.tar.gz.gpg", hashlib.sha256(archive).hexdigest(),
    )  # fmt: skip
    said = {event["type"]: event["detail"] for event in receipt["events"]}
    assert any(etag(archive) in event["detail"] for event in receipt["events"]), "the archive's ETag"
    decrypted = re.search(r"SHA-256 [0-9a-f]{64}.* SHA-256 ([0-9a-f]{64})", said["decryption"])
    assert decrypted is not None
    made = {one["path"]: one for one in receipt["outputs"] if one["step"] == "unpack"}
    lies = {one["uri"]: one["sha256"] for one in receipt["locations"]}
    for name, data in files.items():
        sha256 = hashlib.sha256(data).hexdigest()
        assert (made[name]["sha256"], made[name]["detail"]["md5"]) == (sha256, hashlib.md5(data).hexdigest())
        assert lies[f"s3://google-books/{barcode}/{name}"] == sha256
        if name != "checksum.md5":
            assert made[name]["detail"]["listed_in"] == "checksum.md5"


def test_signed_in_wanted_converted_fetched_unpacked_and_stored(library: Library) -> None:
    """All that the page types; the source waits for the sign-in, and goes on by itself."""
    here, world = library.here, library.grin.world
    one, two = "32101081977728", "32101064781634"
    world.add(one, two)
    files = {barcode: volume(barcode) for barcode in (one, two)}
    for barcode in files:
        world.books[barcode].archive = library.seal(files[barcode])
    here.start()
    here.until(lambda: here.events("source.stopped"))
    assert "dittohead source authorize google" in here.events("source.stopped")[0]["error"]
    assert "someone@library.example is signed in" in library.authorize()
    lines = [line for line in library.typed("source authorize") if "authorize" not in line]
    assert "lets someone@library.example in" in command(here.config, *shlex.split(lines[0])[1:])
    command(here.config, *shlex.split(lines[1])[1:])
    here.until(lambda: '"available"' in command(here.config, "source", "list", "google", "--json"))
    assert "2 volumes are now wanted" in command(here.config, *shlex.split(lines[2])[1:])
    here.until(lambda: len(world.in_process) == 2)
    world.tick()
    here.until(lambda: {entry(library, barcode)["stage"] for barcode in files} == {"stored"})
    objects = library.objects()
    for barcode, kept in files.items():
        assert {k: v for k, v in objects.items() if k.startswith(f"{barcode}/0") or k.endswith(".xml")}
        for name, data in kept.items():
            assert objects[f"{barcode}/{name}"] == data
    shown = command(here.config, *shlex.split(lines[3])[1:])
    assert "2 stored" in shown
    history = entry(library, one)["history"]
    assert history[0]["by"] == "jobs"
    (line,) = library.typed("source audit")
    words = shlex.split(line.removeprefix("sudo -u dittohead dittohead "))
    words += ["--endpoint-url", library.endpoint]
    good = here.run(*words)
    assert "2 stored, 22 objects as their receipts say; nothing is missing" in good.stdout
    assert "only their size" not in good.stdout
    assert library.here.run(*words, "--read").returncode == 0
    proves(library, one, files[one])
    kept = library.objects()[f"{one}/00000002.txt"]
    library.client.put_object(Bucket="google-books", Key=f"{one}/00000002.txt", Body=kept[::-1])
    library.client.delete_object(Bucket="google-books", Key=f"{one}/00000001.jp2")
    library.client.put_object(Bucket="google-books", Key=f"{two}/00000001.txt", Body=b"x")
    library.client.put_object(Bucket="google-books", Key=f"{two}/more.txt", Body=b"x")
    library.client.put_object(Bucket="google-books", Key="other/x", Body=b"x")
    bad = here.run(*words, "--json", check=False)
    assert bad.returncode == os.EX_DATAERR
    found = json.loads(bad.stdout)
    assert [one["what"] for one in found["missing"]] == [f"s3://google-books/{one}/00000001.jp2"]
    assert {one["what"]: one["why"] for one in found["changed"]} == {
        f"s3://google-books/{one}/00000002.txt": "its bytes have another SHA-256 than the receipt says",
        f"s3://google-books/{two}/00000001.txt": "1 bytes; the receipt says 25",
    }
    assert {one["what"] for one in found["surplus"]} == {
        f"s3://google-books/{two}/more.txt", "s3://google-books/other",
    }  # fmt: skip
    table = command(here.config, "source", "list", "google", "--csv").splitlines()
    assert table[0].startswith("key,state,stage,reason")
    assert len(table) == 3


def test_what_the_page_pauses_is_paused_and_goes_on(library: Library) -> None:
    here, world = library.here, library.grin.world
    world.add("A1")
    here.start()
    library.authorize()
    here.until(lambda: '"available"' in command(here.config, "source", "list", "google", "--json"))
    pauses = library.typed("source pause")
    for line in pauses[:2]:
        command(here.config, *shlex.split(line)[1:])
    command(here.config, "source", "want", "google", "A1")
    assert "paused requests: Google asked us to" in command(here.config, "source", "list")
    rounds = len(here.events("source.looked"))
    here.until(lambda: len(here.events("source.looked")) > rounds + 1)
    assert world.in_process == []
    for line in pauses[2:]:
        command(here.config, *shlex.split(line)[1:])
    here.until(lambda: world.in_process == ["A1"])


def test_what_the_page_types_on_the_board_is_carried_out(library: Library) -> None:
    """Tokens dropped, held, let go on, moved back; fields in a step's options; the same by commands."""
    here, world = library.here, library.grin.world
    one, two = "32101081977728", "32101064781634"
    world.add(one, two)
    for barcode in (one, two):
        world.books[barcode].archive = library.seal(volume(barcode))
    field, bucket = (text for text in re.findall(r"`([^`\n]*storage_bucket[^`\n]*)`", PAGE.read_text())[:2])
    text = here.config.read_text().replace("bucket: google-books", bucket, 1)
    here.config.write_text(text.replace("ahead: 20", f"ahead: 20, {field}"))
    here.start()
    library.authorize()
    here.until(lambda: '"available"' in command(here.config, "source", "list", "google", "--json"))
    board = here.root / "board" / "google"
    here.until((board / "hold").is_dir)
    command(here.config, "source", "pause", "google", "requests")
    lines = [line.replace("/srv/dittohead", str(here.root)) for line in library.typed("mv /srv")]
    (library.shell.home / "wanted.txt").write_text(f"{two}\n")
    library.shell.run("\n".join(lines[:2]))
    here.until(lambda: {entry(library, barcode)["stage"] for barcode in (one, two)} == {"wanted"})
    here.until((board / "available" / f"{two}.json").exists)
    library.shell.run(lines[2])
    here.until(lambda: entry(library, two)["stage"] == "hold")
    here.until((board / "hold" / f"{two}.json").exists)
    library.shell.run(lines[3])
    here.until(lambda: entry(library, two)["stage"] == "wanted")
    typed = [shlex.split(line)[1:] for line in library.typed("source hold")]
    assert "1 entry is held" in command(here.config, *typed[0])
    assert "1 entry is let go on" in command(here.config, *typed[1])
    command(here.config, "source", "resume", "google", "requests")
    here.until(lambda: len(world.in_process) == 2)
    world.tick()
    here.until(lambda: {entry(library, barcode)["stage"] for barcode in (one, two)} == {"stored"})
    here.until((board / "stored" / f"{one}.json").exists)
    done = len(here.events("job.finished"))
    library.shell.run(lines[4])
    here.until(lambda: len(here.events("job.finished")) > done)
    assert {line["step"] for line in here.events("step.started")[-3:]} == {
        "google-books", "store", "store-lists",
    }  # fmt: skip
    assert "1 entry is brought in again" in command(here.config, *typed[2])
    here.until(lambda: len(here.events("job.finished")) > done + 1)
    here.until(lambda: entry(library, one)["stage"] == "stored")
    here.until(lambda: "agree" in command(here.config, *typed[3]))
    assert "agree" in command(here.config, *typed[4])


def test_a_wrong_passphrase_fails_the_volume_and_retry_stores_it(library: Library) -> None:
    here, world = library.here, library.grin.world
    world.add("A1")
    world.books["A1"].archive = library.seal(volume("A1"))
    world.again("A1", world.books["A1"].archive)
    (here.root / "credentials" / "grin-passphrase").write_text("wrong one")
    here.start()
    library.authorize()
    here.until(lambda: "converted" in command(here.config, "source", "list", "google"))
    command(here.config, "source", "want", "google", "--queue", "converted")
    here.until((here.root / "failed" / "A1").exists)
    assert "does not open it" in (here.root / "failed" / "A1.reason.txt").read_text()
    (here.root / "credentials" / "grin-passphrase").write_text(PASSPHRASE)
    command(here.config, "retry", "A1")
    here.until(lambda: entry(library, "A1")["stage"] == "stored")
