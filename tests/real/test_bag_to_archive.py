"""The page on the whole way of a bag, as it stands: received, proved, described, stored twice, recorded."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bagit
import pytest
from lxml import etree

from tests.docs.pages import DOCS, blocks
from tests.support.archivesspace import ArchivesSpace
from tests.support.archivesspace_job import NAME, SECRETS, furnish
from tests.support.clamd import EICAR, FakeClamd, fake_clamd
from tests.support.daemon import Site, site
from tests.support.images import tiff
from tests.support.s3_server import S3Server
from tests.support.served_in_thread import served_in_thread

# A whole way with three systems: the machine may be busy.
pytestmark = [pytest.mark.service, pytest.mark.timeout(400)]

PAGE = DOCS / "bag-to-archive.md"
FILES = {f"{NAME}_{number}.tif": tiff(300 + number, 200) for number in (1, 2, 10)}


@dataclass
class World:
    """The daemon and all it speaks to."""

    here: Site
    archive: ArchivesSpace
    store: S3Server
    clamd: FakeClamd
    root: Path  #: of the OCFL storage root

    def keys(self, bucket: str) -> list[str]:
        listed = self.store.client().list_objects_v2(Bucket=bucket).get("Contents", [])
        return [item["Key"] for item in listed]

    def over(self, name: str) -> dict[str, Any]:
        """Return the job of a folder, once it is over or a person has to decide."""

        def found() -> dict[str, Any] | None:
            jobs = [job for job in self.here.json("list") if job["name"] == name]
            over = any(job["state"] in ("done", "failed", "frozen") for job in jobs)
            return self.here.json("show", name) if over else None

        job: dict[str, Any] = self.here.until(found, timeout_s=120)
        return job


def configured(text: str, world: World) -> str:
    """Return the page's configuration with the addresses there are here."""
    for theirs, ours in (
        ("root: /srv/dittohead", "root: .\nspace: {floor: 0}\nretry: {first: 100ms, most: 1s}"),
        ("https://archives.example.org/api", world.archive.url),
        ("unix:/run/clamav/clamd.ctl", world.clamd.address),
        ("/srv/ocfl", str(world.root)),
    ):
        assert theirs in text
        text = text.replace(theirs, ours)
    return re.sub(r"bucket: (\w+)", rf"bucket: \1, endpoint_url: {world.store.url}", text)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    archive = ArchivesSpace()
    archive.coming()
    furnish(archive)
    root = tmp_path / "ocfl"
    root.mkdir()
    with served_in_thread(archive.serving()), S3Server() as store, fake_clamd(tmp_path) as clamd:
        for bucket in ("preservation", "access"):
            store.client().create_bucket(Bucket=bucket)
        with site(tmp_path / "root", "") as here:
            (here.root / "credentials").mkdir()
            for name, secret in {
                "s3-keys": "[default]\naws_access_key_id = test\naws_secret_access_key = not-to-be-seen\n",
                "archivesspace-password": SECRETS["aspace-password"],
            }.items():
                (here.root / "credentials" / name).write_text(secret)
            made = World(here, archive, store, clamd, root)
            here.configure(configured(next(b.text for b in blocks(PAGE) if b.language == "yaml"), made))
            here.start()
            yield made
        for bucket in ("preservation", "access"):  # what moto keeps is the process's, not the server's
            for key in made.keys(bucket):
                store.client().delete_object(Bucket=bucket, Key=key)
            store.client().delete_bucket(Bucket=bucket)


def bag(place: Path, files: dict[str, bytes]) -> Path:
    """Make a bag as the partner does: by the library that most people use, with the scanner's list."""
    place.mkdir(parents=True)
    lines = []
    for name, data in files.items():
        (place / name).write_bytes(data)
        lines.append(f"{hashlib.md5(data, usedforsecurity=False).hexdigest()}  {name}\n")
    (place / "checksum.md5").write_text("".join(lines))
    bagit.make_bag(str(place), {"Source-Organization": "Partner"}, checksums=["sha256"])
    return place


def dropped(world: World, place: Path, name: str = NAME) -> dict[str, Any]:
    shell = world.here.root / "inbox"
    place.rename(shell / f".{name}")
    (shell / f".{name}").rename(shell / name)
    return world.over(name)


def test_the_whole_way(world: World, tmp_path: Path) -> None:
    job = dropped(world, bag(tmp_path / "made", FILES))
    assert job["state"] == "done", job["reason"]
    (receipt,) = world.here.receipts(NAME)
    kinds = {event["type"] for event in receipt["events"]}
    assert {"ingestion end", "virus check", "format identification", "validation", "replication"} <= kinds, (
        kinds
    )
    # The package is one object, and it is valid: by its own inventory, and its METS document names each file.
    world.here.run("ocfl", "verify", str(world.root))
    mets = list(world.root.rglob("mets.xml"))
    assert len(mets) == 1
    text = etree.parse(str(mets[0]))
    named = {one.rpartition("/")[2] for one in text.xpath("//@*[local-name() = 'href']")}
    assert set(FILES) <= named
    # Masters and copies lie in their buckets, and the record says where.
    assert sorted(world.keys("preservation")) == sorted(f"{NAME}/data/{Path(n).stem}.jp2" for n in FILES)
    assert sorted(world.keys("access")) == sorted(f"{NAME}/data/{Path(n).stem}.jpg" for n in FILES)
    components = [one for uri, one in world.archive.records.items() if "/digital_object_components/" in uri]
    assert len(components) == len(FILES)
    assert json.loads(world.here.run("verify", NAME, "--json").stdout)["problems"] == []
    assert json.loads(world.here.run("plan", str(world.here.root / "done" / NAME), "--json").stdout)["good"]


FAULTS: dict[str, dict[str, bytes]] = {
    "HBF_001_03": {"letter.txt": b"Dear Sir, " + EICAR},
    "HBF_001_04": {"scan.pdf": tiff(20, 20)},
    "HBF_001_05": {"odd": b"\x00\x01\x02" * 40},
    "HBF_001_06": {},
}


def test_what_is_not_as_it_should_be_stops_before_anything_is_stored(world: World, tmp_path: Path) -> None:
    """Each with the file's name, beside the others; what is held goes on when a person says so."""
    for number, name in enumerate(FAULTS):
        furnish(world.archive, name, f"/repositories/2/archival_objects/{100 + number}")
        made = bag(tmp_path / name, {f"{name}_1.tif": tiff(90, 60), **FAULTS[name]})
        if name == "HBF_001_06":
            (made / "data" / f"{name}_1.tif").write_bytes(tiff(91, 60))
        made.rename(world.here.root / "inbox" / f".{name}")
    for name in FAULTS:
        (world.here.root / "inbox" / f".{name}").rename(world.here.root / "inbox" / name)
    for name, files in FAULTS.items():
        job = world.over(name)
        assert job["state"] == ("frozen" if name == "HBF_001_05" else "failed"), job["reason"]
        assert next(iter(files), f"{name}_1.tif") in job["reason"]
    assert (world.keys("preservation"), world.keys("access"), list(world.root.iterdir())) == ([], [], [])
    assert world.archive.posts == []
    world.here.run("thaw", "HBF_001_05")
    assert world.here.until(lambda: (world.here.root / "done" / "HBF_001_05").exists(), timeout_s=120)
