"""The page on a preservation service: its package is installed, and talks to a real sshd with a service behind it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from tests.docs.installed import install
from tests.docs.pages import DOCS, blocks
from tests.docs.shell import Shell, command
from tests.support.daemon import Site, site
from tests.support.sshd import Sshd, sshd

pytestmark = [pytest.mark.service, pytest.mark.timeout(240)]

PAGE = DOCS / "preservation-service.md"
METS, HREF = "{http://www.loc.gov/METS/}", "{http://www.w3.org/1999/xlink}href"
OBJECT: dict[str | bytes, Any] = {
    "lido.xml": b"<lido/>",
    "images": {"front 1.tif": b"\x00\xff" * 5000, "ä.tif": b""},
}


class Service:
    """What happens to a package at the remote system; it believes nothing."""

    def __init__(self, base: Path) -> None:
        self.base = base
        for name in ("transfer", "accepted", "rejected"):
            (base / name).mkdir(parents=True)

    def packages(self) -> list[str]:
        return sorted(path.name for path in (self.base / "transfer").iterdir())

    def faults(self, path: Path) -> list[str]:
        """Compare the package with its METS file: every file once, with its size and digest, and no other."""
        with tarfile.open(path) as tar:
            members = {member.name: member for member in tar}
            described = ET.fromstring(tar.extractfile("mets.xml").read())  # type: ignore[union-attr]
            del members["mets.xml"]
            found = []
            for one in described.iter(f"{METS}file"):
                name = unquote(one.find(f"{METS}FLocat").attrib[HREF])  # type: ignore[union-attr]
                member = members.pop(name, None)
                data = b"" if member is None else tar.extractfile(member).read()  # type: ignore[union-attr]
                wanted = (one.attrib["SIZE"], one.attrib["CHECKSUM"])
                if member is None or (str(len(data)), hashlib.sha256(data).hexdigest()) != wanted:
                    found.append(f"{name} is not what METS says")
        return found + [f"{name} is not in METS" for name in members]

    def answer(self, reason: str = "") -> str:
        """Take the only package and answer; return its name."""
        (package,) = self.packages()
        assert package.endswith(".tar")
        path = self.base / "transfer" / package
        reason = reason or "; ".join(self.faults(path))
        place = self.base / ("rejected" if reason else "accepted") / "2031-05-17" / path.stem
        place.mkdir(parents=True)
        report = place / f"{path.stem}-ingest-report.xml"
        (place / "report.new").write_text(f"<premis><note>{reason or 'accepted'}</note></premis>")
        os.replace(place / "report.new", report)
        path.unlink()
        return path.stem


@dataclass
class Museum:
    here: Site
    service: Service
    server: Sshd

    def waits(self, name: str, times: int = 1) -> dict[str, Any]:
        """Return the line that says that an object waits for the service, for the `times`-th time."""

        def waiting() -> dict[str, Any] | None:
            found = [line for line in self.here.events("step.waiting") if line["name"] == name]
            return found[times - 1] if len(found) >= times else None

        found: dict[str, Any] = self.here.until(waiting)
        assert "is with the preservation service" in found["reason"]
        return found


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install("preservation", tmp_path_factory.mktemp("example"))


@pytest.fixture
def museum(tmp_path: Path, installed: Path, examples: None) -> Iterator[Museum]:
    with sshd(tmp_path / "sshd") as server, site(tmp_path / "root", "") as here:
        service = Service(tmp_path / "sip")
        (here.root / "state").mkdir()
        shutil.copy(server.base / "client", here.root / "state" / "id_ed25519")
        shutil.copy(server.base / "known_hosts", here.root / "state" / "known_hosts")
        (text,) = (block.text for block in blocks(PAGE) if block.language == "yaml")
        for before, after in {
            "/srv/dittohead": str(here.root),
            "base: /sip": f"base: {service.base}",
            "/opt/dittohead/bin/make-sip": str(installed / "bin" / "make-sip"),
        }.items():
            assert before in text
            text = text.replace(before, after)
        here.config.write_text(text + "space: {floor: 0}\nretry: {first: 10ms, most: 20ms}\n")
        shell = Shell(tmp_path / "shell")
        shell.hosts(server, "preservation.example.org")
        here.env |= {"PATH": shell.env["PATH"], "PYTHONPATH": str(installed)}
        yield Museum(here, service, server)


def test_accepted_after_a_wait_a_freeze_and_a_restart(museum: Museum) -> None:
    """The wait outlasts the daemon; the answer that came meanwhile is read after the thaw."""
    here, service = museum.here, museum.service
    here.start()
    here.drop("object-1", OBJECT)
    museum.waits("object-1")
    assert service.faults(service.base / "transfer" / service.packages()[0]) == []
    command(here.config, "poke", "object-1")  # not yet: it is asked, and nothing is sent again
    museum.waits("object-1", 2)
    here.kill()
    here.start()
    command(here.config, "freeze", "object-1", "--reason", "image rights unclear")
    here.until(lambda: here.events("job.frozen"))
    assert json.loads(command(here.config, "list", "--state", "frozen", "--json"))[0]["reason"].endswith(
        "image rights unclear"
    )
    sip = service.answer()
    command(here.config, "thaw", "object-1")
    here.until((here.root / "done" / "object-1").exists)
    (receipt,) = here.receipts("object-1")
    (location,) = receipt["locations"]
    assert location["uri"].endswith(f"/accepted/2031-05-17/{sip}/{sip}-ingest-report.xml")
    assert [event["type"] for event in receipt["events"]].count("transfer") == 1
    assert service.packages() == []


def test_rejected_then_submitted_again_as_a_package_of_its_own(museum: Museum) -> None:
    """The report's words reach the person; an answer to the first is none to the second."""
    here, service = museum.here, museum.service
    here.start()
    here.drop("object-2", OBJECT)
    museum.waits("object-2")
    first = service.answer("mets:file-1: unknown format")
    command(here.config, "poke", "object-2")
    here.until((here.root / "failed" / "object-2").exists)
    reason = (here.root / "failed" / "object-2.reason.txt").read_text()
    assert "mets:file-1: unknown format" in reason
    assert "dittohead rerun" in reason
    command(here.config, "rerun", "object-2")
    museum.waits("object-2", 2)
    second = service.answer()
    assert second != first
    command(here.config, "poke", "object-2")
    here.until((here.root / "done" / "object-2").exists)


def test_a_crash_between_the_rename_and_its_note_sends_nothing_twice(museum: Museum) -> None:
    """The package lies in transfer/ although nobody remembers: as after a kill right there."""
    here, service = museum.here, museum.service
    here.start()
    here.drop("object-3", OBJECT)
    waiting = museum.waits("object-3")
    (package,) = service.packages()
    path = service.base / "transfer" / package
    before = path.stat().st_ino
    command(here.config, "cancel", "object-3")
    here.until((here.root / "failed" / "object-3").exists)
    command(
        here.config, "retry", "object-3"
    )  # the same job: what the step remembered is gone, its package is not
    museum.waits("object-3", 2)
    assert waiting["job"] in package
    assert (service.packages(), path.stat().st_ino) == ([package], before)


def test_a_service_that_is_down_fails_no_object(museum: Museum) -> None:
    """It is paused, by its name."""
    here = museum.here
    museum.server.stop()
    here.start()
    here.drop("object-4", OBJECT)
    here.until(lambda: here.events("target.paused"))
    assert museum.service.packages() == []
