"""The page on a preservation service: its configurations against a service that is strict, and its commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import DOCS, blocks
from tests.docs.shell import command
from tests.support import package
from tests.support.daemon import site
from tests.support.museum import OBJECT, Museum
from tests.support.package import _KEY, CONTRACT
from tests.support.preservation_service import PreservationService, served

pytestmark = [pytest.mark.service, pytest.mark.timeout(240)]

PAGE = DOCS / "preservation-service.md"


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("pygfried")
    return package.schemas(tmp_path_factory.mktemp("schemas"))


def configured(text: str, changes: dict[str, Any]) -> str:
    for before, after in changes.items():
        assert before in text, before
        text = text.replace(before, str(after))
    return text


@pytest.fixture(params=["sftp", "rest"])
def museum(request: pytest.FixtureRequest, tmp_path: Path, schemas: Path) -> Iterator[Museum]:
    """The page's set-up, with the submit step of one of its two examples."""
    certificate = tmp_path / "cert.pem"
    certificate.write_text("-----BEGIN CERT" + _KEY.partition("-----BEGIN CERT")[2])
    service = PreservationService(tmp_path / "sip", contract=CONTRACT, ca=certificate, schemas=schemas)
    whole, rest = (block.text for block in blocks(PAGE) if block.language == "yaml")
    with served(service) as there, site(tmp_path / "root", "") as here:
        changes: dict[str, Any] = {
            "/srv/dittohead/known_hosts": there.known_hosts,
            "/srv/dittohead": here.root,
        }
        changes |= {"/srv/schemas/dpres-xml-schemas": schemas, "preservation.example.org": "127.0.0.1"}
        text = configured(whole, {**changes, "user: museum": f"user: museum\n            port: {there.port}"})
        if request.param == "rest":
            other = "".join(f"      {line}\n" for line in rest.removeprefix("- package: {}\n").splitlines())
            text = text.partition("      - submit:")[0]
            text += configured(other, {"https://preservation.example.org": there.url})
        here.configure(text + "space: {floor: 0}\n")
        credentials = here.root / "credentials"
        credentials.mkdir(mode=0o700)
        secrets = {
            "preservation.key": there.key,
            "preservation.password": service.password,
            "signing.pem": _KEY,
        }
        for name, secret in secrets.items():
            (credentials / name).write_text(secret)
            (credentials / name).chmod(0o600)
        yield Museum(here, there)


def test_accepted_when_it_is_asked_for(museum: Museum) -> None:
    """Sent, waited for, poked, done; the archive in work/ is gone."""
    here, service = museum.here, museum.service
    here.start()
    here.drop("object-1234", OBJECT)
    museum.until_waits("object-1234")
    service.tick(3)
    command(here.config, "poke", "object-1234")
    museum.lies_in("done", "object-1234")
    (receipt,) = here.receipts("object-1234")
    kinds = [event["type"] for event in receipt["events"]]
    assert kinds.count("transfer") == kinds.count("accession") == 1
    assert not list((here.root / "work").glob("*/package/*.tar"))


def test_rejected_then_rerun(museum: Museum) -> None:
    """The service's words reach the person; the second package is one of its own."""
    here, service = museum.here, museum.service
    here.start()
    here.drop("object-1234", OBJECT)
    museum.until_waits("object-1234")
    service.rejects = "a.jpg: JHOVE: truncated"
    service.tick(3)
    command(here.config, "poke", "object-1234")
    museum.lies_in("failed", "object-1234")
    assert "JHOVE: truncated" in (here.root / "failed" / "object-1234.reason.txt").read_text()
    command(here.config, "rerun", "object-1234")
    museum.until_waits("object-1234", 2)
    assert len(service.handed) == 2


def test_every_freeze_of_the_page_is_one() -> None:
    """The table has a line for each reason that the step gives."""
    from dittohead.workers.submit import submission

    reasons = [
        submission.SILENT,
        submission.EXPIRED,
        submission.UNCLEAR,
        submission.OPEN,
        submission.PRESERVED,
    ]
    table = PAGE.read_text().split("| the job is frozen because |")[1].split("\n\n")[0]
    assert table.count("\n") == len(reasons) + 2
