"""The page on records, as it stands: masters to a bucket, access copies shown, all of it in ArchivesSpace."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import iiif
from tests.support.archivesspace import ArchivesSpace
from tests.support.archivesspace_job import NAME, SECRETS, furnish
from tests.support.daemon import Site, site
from tests.support.images import decoded, tiff
from tests.support.islandora import Islandora, served
from tests.support.islandora_state import PASSWORD
from tests.support.s3_server import S3Server
from tests.support.served_in_thread import served_in_thread
from tests.support.trees import tree

# Three whole jobs with two sites each: the machine may be busy.
pytestmark = [pytest.mark.service, pytest.mark.timeout(400)]

PAGE = Path(__file__).parent.parent.parent / "docs" / "records.md"
FOLDER: dict[str | bytes, Any] = {f"{NAME}_{n}.tif": tiff(300 + n, 200) for n in (1, 2, 10)}
ORDER = [f"{NAME}_{n}" for n in (1, 2, 10)]


@dataclass
class World:
    """The daemon and all it speaks to."""

    here: Site
    archive: ArchivesSpace
    islandora: Islandora
    store: S3Server

    def objects(self, bucket: str) -> dict[str, bytes]:
        client = self.store.client()
        listed = client.list_objects_v2(Bucket=bucket).get("Contents", [])
        return {
            item["Key"]: client.get_object(Bucket=bucket, Key=item["Key"])["Body"].read() for item in listed
        }

    def access(self) -> list[dict[str, Any]]:
        """What the digital object shows the public."""
        (record,) = (one for uri, one in self.archive.records.items() if "/digital_objects/" in uri)
        found: list[dict[str, Any]] = record["file_versions"]
        return found

    def empty(self, bucket: str) -> None:
        for key in self.objects(bucket):
            self.store.client().delete_object(Bucket=bucket, Key=key)

    def over(self, station: str, name: str, jobs: int) -> dict[str, Any]:
        self.here.until(lambda: (self.here.root / station / name).exists() or self._elsewhere(name, station))
        self.here.until(
            lambda: sum(job["state"] in ("done", "failed") for job in self.here.json("list")) >= jobs
        )
        found: dict[str, Any] = self.here.json("show", name)
        return found

    def _elsewhere(self, name: str, station: str) -> bool:
        other = self.here.root / ("failed" if station == "done" else "done") / name
        assert not other.exists(), self.here.json("show", name)["reason"]
        return False


def blocks() -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    archive, islandora = ArchivesSpace(), Islandora()
    archive.coming()
    furnish(archive)
    islandora.add_node("Hale papers", field_local_identifier="HALE")
    with served_in_thread(archive.serving(), served(islandora)), S3Server() as store:
        for bucket in ("preservation", "access"):
            store.client().create_bucket(Bucket=bucket)
        policy = {
            "Effect": "Allow",
            "Principal": "*",
            "Action": "s3:GetObject",
            "Resource": "arn:aws:s3:::access/*",
        }
        store.client().put_bucket_policy(Bucket="access", Policy=json.dumps({"Statement": [policy]}))
        with site(tmp_path / "root", "") as here:
            (here.root / "credentials").mkdir()
            for name, secret in {
                "s3-keys": "[default]\naws_access_key_id = test\naws_secret_access_key = not-to-be-seen\n",
                "archivesspace-password": SECRETS["aspace-password"],
                "islandora-password": PASSWORD,
            }.items():
                (here.root / "credentials" / name).write_text(secret)
            made = World(here, archive, islandora, store)
            yield made
        for bucket in ("preservation", "access"):  # what moto keeps is the process's, not the server's
            made.empty(bucket)
            store.client().delete_bucket(Bucket=bucket)


def configure(world: World, text: str) -> None:
    """Write a pipeline of the page, with the addresses there are here."""
    text = text.replace("https://archives.example.org/api", world.archive.url)
    text = text.replace("https://islandora.example.org", world.islandora.base)
    text = text.replace("https://iiif.example.org", f"{world.store.url}/access")
    text = re.sub(r"bucket: (\w+)", rf"bucket: \1, endpoint_url: {world.store.url}", text)
    assert "example.org" not in text
    world.here.configure("root: .\nspace: {floor: 0}\nretry: {first: 100ms, most: 1s}\n" + text)
    world.here.start()


def test_masters_copies_and_records(world: World, tmp_path: Path) -> None:
    """From the plan to the undo, by the first pipeline of the page."""
    configure(world, blocks()[0])
    before = world.archive.state()
    plan = world.here.json("plan", str(tree(tmp_path / NAME, FOLDER)))
    assert plan["good"]
    assert [step["name"] for step in plan["steps"] if step["would"] == []] == []
    planned = {one["where"] for step in plan["steps"] for one in step["would"] if one["action"] == "send"}
    assert (world.archive.posts, world.objects("preservation"), world.objects("access")) == ([], {}, {})

    world.here.drop(NAME, FOLDER)
    job = world.over("done", NAME, 1)
    masters = world.objects("preservation")
    assert sorted(masters) == sorted(f"{NAME}/{name}.jp2" for name in ORDER)
    shown = world.objects("access")
    assert {f"{NAME}/{name}" for name in ("manifest.json", "index.html", "thumbnail.jpg")} < set(shown)
    assert iiif.see(json.loads(shown[f"{NAME}/manifest.json"]))["items"]
    sent = {f"s3://preservation/{key}" for key in masters} | {f"s3://access/{key}" for key in shown}
    assert {uri for uri in planned if not uri.endswith("/")} <= sent | {""}, planned - sent
    for n in (1, 2, 10):
        (tmp_path / "m.jp2").write_bytes(masters[f"{NAME}/{NAME}_{n}.jp2"])
        original = world.here.root / "done" / NAME / f"{NAME}_{n}.tif"
        assert np.array_equal(decoded(tmp_path / "m.jp2"), decoded(original))

    [[_, _, pages]] = world.archive.state()["trees"]
    assert [page["label"].partition(".")[0] for page in pages] == ORDER
    for page, name in zip(pages, ORDER, strict=True):
        (version,) = page["file_versions"]
        data = masters[f"{NAME}/{name}.jp2"]
        assert version["file_uri"] == f"s3://preservation/{NAME}/{name}.jp2"
        assert (version["publish"], version["checksum"]) == (False, hashlib.sha256(data).hexdigest())
        assert version["file_size_bytes"] == len(data)
    uses = ["image-thumbnail", "image-service", "text-json"]
    assert [version["use_statement"] for version in world.access()] == uses
    assert all(version["publish"] for version in world.access())
    assert [version["file_uri"].rpartition("/")[2] for version in world.access()] == [
        "thumbnail.jpg", "index.html", "manifest.json",
    ]  # fmt: skip
    records = [link["uri"] for link in job["links"] if link["use"] == "record"]
    assert any("/digital_objects/" in uri for uri in records)

    (receipt,) = world.here.receipts()
    proofs = [o["detail"]["proof"] for o in receipt["outputs"] if o["step"] == "masters"]
    assert len(proofs) == 3
    assert all(proof for proof in proofs)
    text = json.dumps(receipt) + world.here.log.read_text()
    assert not any(secret in text for secret in ("not-to-be-seen", PASSWORD))

    posts = len(world.archive.posts)
    world.here.run("rerun", NAME)
    world.over("done", NAME, 2)
    assert len(world.archive.posts) == posts  # a second run writes no record
    assert world.objects("preservation") == masters
    assert world.here.run("verify", NAME).returncode == 0

    first = receipt["job"]
    assert f"undo --all {first}" in world.here.run("undo", first, check=False).stderr
    undone = world.here.json("undo", "--all", NAME)
    assert [one["good"] for one in undone] == [True, True], undone
    assert world.archive.state() == before
    assert world.here.run("verify", NAME).stdout.count("undone") == 1


def test_what_cannot_be_recorded_is_sent_nowhere(world: World) -> None:
    """The look-up fails before a byte has left."""
    configure(world, blocks()[0])
    world.here.drop("HBF_9", FOLDER)
    job = world.over("failed", "HBF_9", 1)
    assert "HBF_9" in job["reason"]
    assert "is not there" in job["reason"]
    assert {step["state"] for step in job["all_steps"]} <= {"pending", "failed"}
    assert (world.archive.posts, world.objects("preservation"), world.objects("access")) == ([], {}, {})


@pytest.mark.rest
def test_preservation_and_access_one_after_the_other(world: World) -> None:
    """By the folder's name; the record is that of both."""
    configure(world, blocks()[0])
    world.here.drop(f"{NAME}-preservation", FOLDER)
    world.over("done", f"{NAME}-preservation", 1)
    assert world.objects("access") == {}
    assert len(world.objects("preservation")) == 3
    [[_, _, pages]] = world.archive.state()["trees"]
    assert (len(pages), world.access()) == (3, [])
    asked = str(tree(world.here.root / "mine" / NAME, FOLDER))
    world.here.run("drop", asked, "--for", "access", "--follow")
    assert (world.here.root / "done" / NAME / "dittohead.yaml").read_text() == "purpose:\n- access\n"
    assert (
        world.here.run(
            "drop", str(world.here.root / "done" / NAME), "--for", "access", check=False
        ).returncode
        != 0
    )
    iiif.see(json.loads(world.objects("access")[f"{NAME}/manifest.json"]))
    [[_, _, after]] = world.archive.state()["trees"]
    assert after == pages
    assert len(world.access()) == 3


@pytest.mark.rest
def test_pages_in_islandora_and_their_address_in_the_record(world: World) -> None:
    """By the second block of the page, in place of the steps for access."""
    first, second = blocks()
    begin, end = first.index("      # Access, at"), first.index("      # The record, when")
    text = first[:begin] + second + first[end:].replace("[presentation]", "[islandora]")
    configure(world, text)
    world.here.drop(NAME, FOLDER)
    job = world.over("done", NAME, 1)
    uses = {link["use"]: link["uri"] for link in job["links"]}
    assert uses["page"].startswith(world.islandora.base)
    pages = [node for node in world.islandora.nodes.values() if "field_weight" in json.dumps(node)]
    assert len(pages) == 3
    assert len(world.islandora.files) >= 3
    records = json.dumps(world.archive.state())
    assert uses["page"] in records
    writes, posts = sum(call.writes for call in world.islandora.calls), len(world.archive.posts)
    world.here.run("rerun", NAME)
    world.over("done", NAME, 2)
    assert sum(call.writes for call in world.islandora.calls) == writes
    assert len(world.archive.posts) == posts
    assert world.here.run("verify", NAME).returncode == 0
