"""Packages and their answers in a real daemon: deaths at every point, freezes, thaws, updates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dittohead.system.fail_points import SUBMIT_POINTS
from tests.support import package
from tests.support.museum import OBJECT, Museum, museum

pytestmark = [pytest.mark.service, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("pygfried")
    return package.schemas(tmp_path_factory.mktemp("schemas"))


def archives(found: Museum) -> list[Path]:
    return sorted((found.here.root / "work").glob("*/package/*.tar"))


POINTS = [
    (way, point)
    for point in SUBMIT_POINTS
    for way in ("sftp", "rest")
    if way == "rest" or point != "submit.created"
]


@pytest.mark.parametrize("way", ["sftp", "rest"])
def test_a_death_at_every_point_doubles_and_loses_nothing(tmp_path: Path, schemas: Path, way: str) -> None:
    """A folder for each point; the daemon is killed there, and started again."""
    points = [point for one, point in POINTS if one == way]
    with museum(tmp_path, schemas, way=way, ticks_s=0.05) as found:
        here = found.here
        for number, point in enumerate(points):
            here.arm(f"{point}:1:kill")
            here.start()
            here.drop(f"object-{number}", OBJECT)
            assert here.process is not None
            here.until(lambda: here.process is not None and here.process.poll() is not None)
            here.arm("")
            here.start()
            found.lies_in("done", f"object-{number}")
            here.kill()
        assert found.service.doubles == []
        assert found.service.complaints == []
        assert len(found.service.kept) == len(points)
        for receipt in here.receipts():
            kinds = [event["type"] for event in receipt["events"]]
            assert kinds.count("transfer") == 1, (receipt["name"], kinds)
            assert kinds.count("accession") == 1
        assert archives(found) == []


@pytest.mark.parametrize("way", ["sftp", "rest"])
def test_the_archive_goes_and_is_made_again(tmp_path: Path, schemas: Path, way: str) -> None:
    """Let go when the service has it; a retry after a rejection makes it again, and sends it as another."""
    with museum(tmp_path, schemas, way=way) as found:
        here, service = found.here, found.service
        here.start()
        here.drop("object-1", OBJECT)
        found.until_waits("object-1")
        here.until(lambda: not archives(found))
        service.rejects = "a.wad: Unsupported file format"
        service.tick(3)
        found.lies_in("failed", "object-1")
        assert "Unsupported file format" in (here.root / "failed" / "object-1.reason.txt").read_text()
        first = [one.sha256 for one in service.transfers.values()]
        service.rejects = ""
        here.run("retry", "object-1")
        here.until(lambda: sum(service.handed.values()) == 2)
        service.tick(3)
        found.lies_in("done", "object-1")
        (receipt,) = here.receipts("object-1")
        assert len([one for one in receipt["outputs"] if one["step"] == "submit"]) == 4
        assert len(first) == 1
        assert archives(found) == []


def test_a_rule_freezes_and_thaw_sends_it_as_another(tmp_path: Path, schemas: Path) -> None:
    """With the rule's reason; after a restart, too."""
    more = '          freeze_on: [{match: "Unsupported file format", reason: "Unsupported file format"}]\n'
    with museum(tmp_path, schemas, more=more) as found:
        here, service = found.here, found.service
        here.start()
        here.drop("object-1", OBJECT)
        found.until_waits("object-1")
        service.rejects = "a.wad: Unsupported file format"
        service.tick(3)
        here.until(lambda: here.events("job.frozen"))
        (frozen,) = here.json("list", "--state", "frozen")
        assert frozen["reason"].endswith("Unsupported file format")
        here.kill()
        here.start()
        service.rejects = ""
        here.run("thaw", "object-1")
        here.until(lambda: sum(service.handed.values()) == 2)
        service.tick(3)
        found.lies_in("done", "object-1")
        (kept,) = service.kept.values()
        assert kept["names"][0].endswith("-2.tar")


def test_a_second_job_of_a_preserved_object_is_an_update(tmp_path: Path, schemas: Path) -> None:
    """What the first has recorded gives it CREATEDATE; the service takes it as an update."""
    with museum(tmp_path, schemas, ticks_s=0.05) as found:
        here, service = found.here, found.service
        here.start()
        here.drop("object-1", OBJECT)
        found.lies_in("done", "object-1")
        here.run("rerun", "object-1")
        here.until(lambda: len(here.receipts("object-1")) == 2)
        (kept,) = service.kept.values()
        assert len(kept["names"]) == 2
        statuses = [one.told["status"] for one in service.transfers.values()]
        assert sorted(statuses) == ["submission", "update"]


def test_an_answer_after_a_restart_and_a_freeze(tmp_path: Path, schemas: Path) -> None:
    """Frozen by a person while it waits; the answer is read after the thaw, and nothing is sent again."""
    with museum(tmp_path, schemas) as found:
        here, service = found.here, found.service
        here.start()
        here.drop("object-1", OBJECT)
        found.until_waits("object-1")
        here.kill()
        here.start()
        here.run("freeze", "object-1", "--reason", "image rights unclear")
        here.until(lambda: here.events("job.frozen"))
        service.tick(3)
        here.run("thaw", "object-1")
        found.lies_in("done", "object-1")
        assert sum(service.handed.values()) == 1


def test_a_cancelled_job_takes_back_what_was_not_handed_over(tmp_path: Path, schemas: Path) -> None:
    """The part at the service is removed; a package that was handed over can be undone before it is taken."""
    with museum(tmp_path, schemas) as found:
        here, service = found.here, found.service
        service.holds = True
        here.start()
        here.drop("object-1", OBJECT)
        found.until_waits("object-1")
        here.run("cancel", "object-1")
        found.lies_in("failed", "object-1")
        assert len(list((service.base / "transfer").iterdir())) == 1
        here.run("undo", "object-1", check=False)
        assert list((service.base / "transfer").iterdir()) == []


def test_what_doctor_and_plan_say(tmp_path: Path, schemas: Path) -> None:
    """Every secret is a name."""
    from tests.support.trees import tree

    with museum(tmp_path, schemas, way="sftp+rest") as found:
        said = found.here.run("doctor", check=False).stdout
        assert "the host key is known" in said
        assert "REST 2.0 answers" in said
        folder = tree(tmp_path / "object-7", OBJECT)
        planned: Any = found.here.run("plan", str(folder)).stdout
        assert "then wait for the answer" in planned
        secrets = [found.service.password, "PRIVATE KEY"]
        assert not any(secret in said + planned for secret in secrets)
