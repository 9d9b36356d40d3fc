"""What breaks, expires, is refused or raced: one run goes through, or ends as it should; nothing is doubled."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest

from dittohead.model.errors import TargetError, TransientError
from dittohead.workers.archivesspace import client as clients
from dittohead.workers.archivesspace.client import opened
from dittohead.workers.archivesspace.options import ArchivesSpaceOptions
from tests.archivesspace.conftest import object_there, pages, shown, the
from tests.support.archivesspace import ArchivesSpace, Call, Fault
from tests.support.archivesspace_job import AO, SECRETS, Job

R = "/repositories/2"


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("kind", ["500", "502", "503", "drop"])
async def test_any_call_may_break(site: ArchivesSpace, tmp_path: Path, kind: str, *, after: bool) -> None:
    """Each write fails once, before or after its effect: one run goes through, and nothing is doubled."""
    initial = site.saved()
    await Job.made(tmp_path / "well", site.url, 2, access=shown(site), events=True).run()
    wanted = site.state()
    writes = list(site.posts)
    for number, write in enumerate(writes):
        site.restore(initial)
        if write in writes[:number]:
            continue  # events, of which the first stands for all
        site.faults.append(Fault(write, kind, after=after))
        ctx = await Job.made(tmp_path / f"{number}", site.url, 2, access=shown(site), events=True).run()
        assert site.state() == wanted, write
        assert ctx.fences >= len(set(writes)) - 1


@pytest.mark.parametrize("after", [False, True])
async def test_stopped_while_an_answer_is_awaited(
    site: ArchivesSpace, tmp_path: Path, *, after: bool
) -> None:
    """The daemon stops in mid-request; the next try finds what came of it."""
    job = Job.made(tmp_path, site.url, 3)
    site.faults.append(Fault(r"POST .*/children", "slow", after=after))
    task = asyncio.create_task(job.run())
    await site.slow.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    site.hurry.set()
    await job.run()
    assert len(pages(site)) == 3
    await job.undo()
    assert [uri for uri in site.records if "/digital_object" in uri] == []


async def test_what_records_nothing_is_said(site: ArchivesSpace, tmp_path: Path) -> None:
    job = Job.made(tmp_path, site.url, 1, masters=[])
    assert "it would record no file" in job.worker.check(job.options)[0]
    assert (
        Job.made(tmp_path, site.url, 1, masters=[], write=False).worker.check(
            job.options.model_copy(update={"write": False})
        )
        == []
    )


async def test_reads_are_asked_again(site: ArchivesSpace, tmp_path: Path) -> None:
    site.faults += [
        Fault(r"GET .*/tree/root", "502", times=2),
        Fault(r"GET .*find_by_id.*", "drop"),
        Fault(r"POST .*/login", "503"),
    ]
    await Job.made(tmp_path, site.url, 1).run()
    assert len(pages(site)) == 1


async def test_a_long_retry_after_is_left_to_the_engine(site: ArchivesSpace, tmp_path: Path) -> None:
    site.faults.append(Fault(r"GET .*find_by_id.*", "429", headers={"Retry-After": "90"}))
    with pytest.raises(TransientError) as raised:
        await Job.made(tmp_path, site.url, 1).run()
    assert raised.value.retry_after_s == 90


async def test_an_expired_session_is_renewed(site: ArchivesSpace, tmp_path: Path) -> None:
    """At any call; nothing is done twice, and no session is left behind."""
    initial = site.saved()
    await Job.made(tmp_path / "well", site.url, 2).run()
    wanted, calls = site.state(), len(site.calls)
    for number in range(2, calls):
        site.restore(initial)
        site.expire_at = {number}
        await Job.made(tmp_path / str(number), site.url, 2).run()
        assert site.state() == wanted
        assert site.logins <= 3


async def test_requests_at_once_share_one_renewal(site: ArchivesSpace) -> None:
    options = ArchivesSpaceOptions(url=site.url, user="dittohead", credential="aspace-password", repository=2)
    async with opened(options, SECRETS.__getitem__) as client:
        await client.get(AO)
        site.expired |= set(site.sessions)
        await asyncio.gather(*(client.get(AO) for _ in range(6)))
    assert site.logins == 2


async def test_a_session_that_never_holds_is_given_up(site: ArchivesSpace, tmp_path: Path) -> None:
    site.faults.append(Fault(r"GET .*", "412", times=1000))
    with pytest.raises(TargetError, match="forgets each session"):
        await Job.made(tmp_path, site.url, 1).run()
    assert site.logins <= 4


async def test_a_refusal_is_asked_once(site: ArchivesSpace, tmp_path: Path) -> None:
    """403 pauses the site; a wrong password is not tried again and again, and is not shown."""
    site.faults.append(Fault(r"POST .*/children", "403", times=1000))
    with pytest.raises(TargetError, match="403 \\(Access denied\\)"):
        await Job.made(tmp_path, site.url, 1).run()
    assert len([call for call in site.calls if call.path.endswith("/children")]) == 1
    site.users["dittohead"] = "changed"
    count = len(site.calls)
    with pytest.raises(TargetError, match="the login failed") as raised:
        await Job(tmp_path).run()
    assert len(site.calls) == count + 1
    assert "not-to-be-seen" not in str(raised.value)


async def test_a_colleague_saves_in_between(site: ArchivesSpace, tmp_path: Path) -> None:
    """A second client really wins each race between our GET and POST: its change and ours both stand."""
    object_there(site, to=())
    lost: list[str] = []

    async def save(call: Call) -> None:
        async with aiohttp.ClientSession() as session:
            async with session.post(
                f"{site.url}/users/colleague/login", data={"password": "other"}
            ) as answer:
                headers = {"X-ArchivesSpace-Session": (await answer.json())["session"]}
            async with session.get(site.url + call.path, headers=headers) as answer:
                record = await answer.json()
            name = "restrictions" if "digital_objects" in call.path else "repository_processing_note"
            record[name] = True if name == "restrictions" else record[name] + "!"
            async with session.post(site.url + call.path, headers=headers, json=record) as answer:
                assert answer.status == 200
        lost.append(call.path)

    for kind in ("archival_objects", "digital_objects"):
        site.before += [(rf"POST /repositories/2/{kind}/\d+", save)] * 2
    await Job.made(tmp_path, site.url, 1, access=shown(site)).run()
    assert len(lost) == 4
    assert site.shown(AO)["repository_processing_note"].startswith("kept too!")
    assert the(site)["restrictions"] is True
    assert len(the(site)["file_versions"]) == 3
    assert [call.status for call in site.calls if call.user == "dittohead" and call.status == 409] != []
    note = site.shown(AO)["repository_processing_note"]
    await Job(tmp_path).undo()
    assert site.shown(AO)["instances"] == []
    assert site.shown(AO)["repository_processing_note"] == note
    assert (the(site)["restrictions"], the(site)["file_versions"]) == (True, [])


async def test_a_race_that_is_never_won_ends(
    site: ArchivesSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def save(call: Call) -> None:
        site.records[call.path]["lock_version"] += 1
        site.before.append((r"POST .*/archival_objects/7", save))

    site.before.append((r"POST .*/archival_objects/7", save))
    with pytest.raises(TransientError, match="again and again"):
        await Job.made(tmp_path, site.url, 1).run()
    posts = [call for call in site.calls if call.method == "POST" and call.path == AO]
    assert len(posts) == clients._CONFLICTS
