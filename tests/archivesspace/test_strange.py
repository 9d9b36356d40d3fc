"""Answers that no ArchivesSpace gives: of proxies, of caches, of what stands at a wrong address."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dittohead.model.errors import StepError, TargetError
from tests.archivesspace.conftest import shown
from tests.support.archivesspace import ArchivesSpace, Fault
from tests.support.archivesspace_job import NAME, SECRETS, Job, furnish


@pytest.mark.parametrize("body", [b"{}", b"[]", b"[" * 100_000])
async def test_each_answer_may_be_another_than_was_asked_for(
    site: ArchivesSpace, tmp_path: Path, body: bytes
) -> None:
    """It is told as what it is, never taken for a defect or for nothing there; then all goes on."""
    initial = site.saved()
    await Job.made(tmp_path / "well", site.url, 1, access=shown(site), events=True).run()
    wanted = site.state()
    for asked in dict.fromkeys(f"{call.method} {call.path}" for call in site.calls):
        if "/enumerations/" in asked and body == b"{}":
            continue  # a list without values
        site.restore(initial)
        site.faults = [Fault(asked, "200", body=body)]
        job = Job.made(tmp_path / "x", site.url, 1, access=shown(site), events=True)
        job.ledger.unlink(missing_ok=True)
        try:
            await job.run()
        except StepError:
            await job.run()
        assert site.state() == wanted, asked


async def test_the_record_of_another_is_not_taken_for_the_one_asked_for(
    site: ArchivesSpace, tmp_path: Path
) -> None:
    """As a cache that does not tell addresses apart would give it."""
    other = furnish(site, "HBF_001_03", "/repositories/2/archival_objects/8")
    site.faults = [Fault("GET /repositories/2/archival_objects/7", "200", body=_json(site.shown(other)))]
    with pytest.raises(StepError, match="nothing an ArchivesSpace would"):
        await Job.made(tmp_path, site.url, 1).preflight()


def _json(record: object) -> bytes:
    return json.dumps(record).encode()


@pytest.mark.parametrize("body", [b"<html>Log in</html>", b'{"session": "not-to-be-seen-either", "us'])
async def test_a_login_page_in_front_pauses_the_site(
    site: ArchivesSpace, tmp_path: Path, body: bytes
) -> None:
    """Its folders wait; and half a session is a secret, too."""
    site.faults = [Fault("POST .*/login", "200", body=body)]
    with pytest.raises(TargetError, match="nothing an ArchivesSpace would") as error:
        await Job.made(tmp_path, site.url, 1).preflight()
    assert "not-to-be-seen" not in repr(error.value)


@pytest.mark.parametrize("status", ["400", "412", "418", "500", "502"])
async def test_a_password_that_is_sent_back_is_not_told(
    site: ArchivesSpace, tmp_path: Path, status: str
) -> None:
    """Neither in an error's text nor in what it carries."""
    password = SECRETS["aspace-password"]
    body = _json({"error": f"database gone; parameters: password={password}"})
    site.faults = [Fault("POST .*/login", status, body=body, times=9)]
    with pytest.raises(StepError) as error:
        await Job.made(tmp_path, site.url, 1, name=NAME).preflight()
    assert password not in repr(error.value) + str(error.value) + str(vars(error.value))


@pytest.mark.parametrize(
    "there",
    ["http://user:word@127.0.0.1/", "http://127.0.0.1:99999/", "http://[::1/", "http://a\x7fb/", "//"],
)
async def test_a_page_redirects_to_what_is_no_address(
    site: ArchivesSpace, tmp_path: Path, there: str
) -> None:
    site.public["/public/t.jpg"] = f"-> {there}".encode()
    job = Job.made(tmp_path, site.url, 1, access=[("thumbnail", f"{site.url}/public/t.jpg")])
    with pytest.raises(StepError):
        await job.run()
    assert site.posts == []
