"""submit against a strict service, over SFTP and REST: once, whole, and every answer."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dittohead.contract.worker import Done, Freeze, Remake, UndoContext, Wait
from dittohead.model.errors import ItemError, StepError, TargetError
from dittohead.model.events import Event, EventType
from dittohead.toolkit.sip import accession
from dittohead.workers.submit import notes, submission
from dittohead.workers.submit.options import SubmitOptions
from dittohead.workers.submit.worker import SubmitWorker
from tests.support import package
from tests.support.preservation_service import Fault, Served, served
from tests.support.submission import Sip, Step, service, sip

pytestmark = [pytest.mark.service, pytest.mark.usefixtures("nothing_blocks_the_loop")]

WAYS = ["sftp", "rest", "both"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Sip:
    base = tmp_path_factory.mktemp("sip")
    return sip(base, package.schemas(tmp_path_factory.mktemp("schemas")))


@pytest.fixture(scope="module")
def update(tmp_path_factory: pytest.TempPathFactory, made: Sip) -> Sip:
    """The same object, as an update of the first."""
    created = made.output.detail["created"]
    return sip(tmp_path_factory.mktemp("update"), made.schemas, update_of=created)


@pytest.fixture
def there(tmp_path: Path, made: Sip) -> Iterator[Served]:
    with served(service(tmp_path, made)) as found:
        yield found
        assert found.service.complaints == []
        assert found.service.doubles == []


def ways(there: Served, way: str) -> dict[str, Any]:
    return {key: getattr(there, key) for key in (("sftp", "rest") if way == "both" else (way,))}


@pytest.fixture(params=WAYS)
def step(request: pytest.FixtureRequest, tmp_path: Path, made: Sip, there: Served) -> Step:
    return Step(tmp_path, made, there, **ways(there, request.param))


@pytest.fixture(params=["sftp", "rest"])
def plain(request: pytest.FixtureRequest, tmp_path: Path, made: Sip, there: Served) -> Step:
    return Step(tmp_path, made, there, **ways(there, request.param))


async def sent(step: Step) -> None:
    assert isinstance(await step.run(), Wait)


async def rejection(step: Step) -> ItemError:
    """Let the answer be looked at until the step fails."""
    for _ in range(3):
        try:
            await step.run()
        except ItemError as error:
            return error
    raise AssertionError("it does not fail")


# -- the path of a package ---------------------------------------------------------------------


async def test_a_package_is_sent_and_accepted(step: Step) -> None:
    """By the services' own schemas, schematrons, signature and fixity; the report is kept."""
    waiting = await step.run()
    assert isinstance(waiting, Wait)
    assert "is with the preservation service since" in waiting.reason
    (transfer,) = step.ctx.events
    assert (transfer.type, transfer.outcome) == (EventType.TRANSFER, "success")
    assert step.ctx.releases == 1
    step.release()
    step.service.tick()
    assert isinstance(await step.run(), Wait)
    assert step.ctx.events == []
    step.service.tick(2)
    done = await step.run()
    assert isinstance(done, Done), done
    (kept,) = step.service.kept.values()
    assert kept["names"] == ["object-7-01JTESTTESTTESTTESTTESTTEST.tar"]
    assert kept["aip"] in done.detail
    (event,) = step.ctx.events
    assert (event.type, event.outcome) == (EventType.ACCESSION, "success")
    assert accession.first_version([event], "Museum_Object_7") == step.made.output.detail["created"]
    assert sorted(Path(one.path.decode()).suffix for one in step.ctx.outputs) == [".html", ".xml"]
    (place,) = step.ctx.locations
    assert place.sha256 == step.made.output.sha256
    assert not step.ctx.outside.exists()


async def test_a_rejection_is_told_in_the_services_words(step: Step) -> None:
    """The first event that failed; the report stays."""
    await sent(step)
    step.service.rejects = "page-7.tif: JHOVE: Unexpected end of file"
    step.service.tick(2)
    error = await rejection(step)
    assert "validation: page-7.tif: JHOVE: Unexpected end of file" in error.what
    assert Path(error.where).read_bytes().startswith(b"<?xml")
    assert "dittohead rerun" in error.hint
    (event,) = step.ctx.events
    assert (event.type, event.outcome) == (EventType.ACCESSION, "failure")


async def test_retry_sends_it_again_under_another_name(step: Step) -> None:
    """A person has decided: the step begins afresh, and the bytes are made again where they were let go."""
    await sent(step)
    step.release()
    step.service.rejects = "nobody likes it"
    step.service.tick(2)
    await rejection(step)
    step.service.rejects, step.ctx.saved = "", {}
    assert isinstance(await step.run(), Remake)
    step.release(gone=False)
    await sent(step)
    step.service.tick(2)
    assert isinstance(await step.run(), Done)
    (kept,) = step.service.kept.values()
    assert kept["names"] == ["object-7-01JTESTTESTTESTTESTTESTTEST-2.tar"]
    assert len(step.ctx.outputs) == 4  # of the rejected one as well
    assert max(step.service.handed.values()) == 1
    step.service.transfers.clear()  # the same bytes twice, as it was asked for


async def test_a_crash_after_a_rejection_was_noted_is_no_decision(step: Step) -> None:
    """It fails again, with the same words, also when the report is gone by then."""
    await sent(step)
    step.service.rejects = "nobody likes it"
    step.service.tick(2)
    first = await rejection(step)
    step.service.pass_time(days=20)
    again = await rejection(step)
    assert first.what == again.what
    assert sum(step.service.handed.values()) == 1


async def test_a_rule_freezes_and_a_thaw_goes_on(step: Step) -> None:
    """The reason is the rule's; after the thaw it is another attempt."""
    rules = [
        {"match": "virus", "reason": "virus"},
        {"match": r"Unsupported file format: \w+", "reason": "Unsupported file format"},
    ]
    step.options = step.options.model_copy(
        update={"freeze_on": SubmitOptions.model_validate({**_places(step), "freeze_on": rules}).freeze_on}
    )
    await sent(step)
    step.service.rejects = "a.wad: Unsupported file format: wad"
    step.service.tick(2)
    frozen = await step.run()
    assert isinstance(frozen, Freeze)
    assert frozen.reason == "Unsupported file format"
    step.service.rejects = ""
    await sent(step)
    step.service.tick(2)
    assert isinstance(await step.run(), Done)
    step.service.transfers.clear()


def _places(step: Step) -> dict[str, Any]:
    return step.options.model_dump(include={"sftp", "rest"}, exclude_none=True)


async def test_accepted_is_final(step: Step) -> None:
    """Also when it is said of an attempt that was rejected before."""
    await sent(step)
    step.service.rejects = "by mistake"
    step.service.tick(2)
    await rejection(step)
    step.service.rejects = ""
    _approve(step)
    step.ctx.saved = {}
    assert isinstance(await step.run(), Done)
    assert sum(step.service.handed.values()) == 1


def _approve(step: Step) -> None:
    """Let the service change its mind: the same package is worked on again."""
    (one,) = step.service.transfers.values()
    for path in step.service.base.glob("rejected/*/*"):
        import shutil

        shutil.rmtree(path)
    one.path.write_bytes(step.made.path.read_bytes())
    one.status, one.answered = "in_progress", None
    step.service.tick(2)


# -- silence and expiry ------------------------------------------------------------------------


async def test_silence_freezes_and_a_thaw_asks_again(step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the thaw it waits as long again; nothing is sent."""
    clock = _Clock(monkeypatch)
    await sent(step)
    for _ in range(13):
        clock.pass_days(1)
        assert isinstance(await step.run(), Wait)
    clock.pass_days(1.1)
    frozen = await step.run()
    assert isinstance(frozen, Freeze)
    assert frozen.reason == submission.SILENT
    assert isinstance(await step.run(), Wait)
    clock.pass_days(1)
    assert isinstance(await step.run(), Wait)
    assert sum(step.service.handed.values()) == 1


async def test_an_answer_that_may_have_expired_is_said(plain: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody could look for longer than the service keeps its answers."""
    clock = _Clock(monkeypatch)
    await sent(plain)
    plain.service.tick(2)
    plain.service.pass_time(days=12)
    clock.pass_days(12)
    frozen = await plain.run()
    assert isinstance(frozen, Freeze)
    assert frozen.reason == submission.EXPIRED
    assert sum(plain.service.handed.values()) == 1


class _Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import time

        self.ahead_s = 0.0
        monkeypatch.setattr(submission, "now", lambda: round(time.time() + self.ahead_s, 3))

    def pass_days(self, days: float) -> None:
        self.ahead_s += days * 86400


def test_the_wait_grows() -> None:
    """From the first to the longest, with the time since it was sent."""
    options = SubmitOptions.model_validate({"rest": REST})
    one = submission.Submission.__new__(submission.Submission)
    one._options = options
    waits = [one._pause_s(hours * 3600) for hours in (0, 1, 10, 100)]
    assert waits == [300, 720, 7200, 21600]


# -- faults ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["500", "503", "429:7", "lost before", "lost after"])
@pytest.mark.parametrize(
    "where", ["POST /api/3.0/transfers$", "PATCH ", "GET .*/transfers$", "GET .*/transfers/", "HEAD "]
)
async def test_faults_of_rest_lose_and_double_nothing(
    tmp_path: Path, made: Sip, there: Served, where: str, how: str
) -> None:
    """Each is waited out, with Retry-After where it is said; no try is counted."""
    step = Step(tmp_path, made, there, rest=there.rest, part="1MiB")
    there.service.faults.append(Fault(where, how, times=2))
    for _ in range(6):
        found = await step.run()
        assert isinstance(found, Wait)
        if found.reason.startswith("PATCH") and how == "429:7":
            assert found.seconds >= 7
    there.service.tick(2)
    for _ in range(4):
        found = await step.run()
        if isinstance(found, Done):
            break
    assert isinstance(found, Done)


async def test_a_service_that_only_fails_is_paused(tmp_path: Path, made: Sip, there: Served) -> None:
    """After a few faults in a row."""
    step = Step(tmp_path, made, there, rest=there.rest)
    there.service.faults.append(Fault("GET", "500", times=99))
    for _ in range(4):
        assert isinstance(await step.run(), Wait)
    with pytest.raises(TargetError, match="500"):
        await step.run()


@pytest.mark.parametrize("fault", [
    Fault("^write", "bytes:1000"), Fault("^write", "bytes:0", after=1), Fault("^rename", "lost before"), Fault("^renamed", "lost after"),
])  # fmt: skip
async def test_breaks_of_sftp_lose_and_double_nothing(
    tmp_path: Path, made: Sip, there: Served, fault: Fault
) -> None:
    """What is there is proved and kept; a rename whose answer was lost is not made again."""
    step = Step(tmp_path, made, there, sftp=there.sftp)
    there.service.faults.append(Fault(fault.where, fault.how, 1, fault.after))
    with pytest.raises(TargetError):
        await step.run()
    assert isinstance(await step.run(), Wait)
    there.service.tick(2)
    assert isinstance(await step.run(), Done)


async def test_a_rename_that_is_still_on_its_way(tmp_path: Path, made: Sip, there: Served) -> None:
    """Of a daemon that was killed: the next one does not send a second part, whatever it sees."""
    step = Step(tmp_path, made, there, sftp=there.sftp)
    there.service.faults.append(Fault("^rename", "lost before"))
    with pytest.raises(TargetError):
        await step.run()
    (part,) = (there.service.base / "transfer").iterdir()
    there.service.calls.clear()
    there.service.faults.append(Fault("^rename", "late"))  # it is done by another before this one
    await sent(step)
    assert not any(call.startswith(("open", "write")) for call in there.service.calls)
    assert not part.exists()
    there.service.tick(2)
    found = [await step.run() for _ in range(2)]  # it may have met a fault, and looks once more
    assert any(isinstance(one, Done) for one in found)


async def test_a_part_is_proved(tmp_path: Path, made: Sip, there: Served) -> None:
    """One that holds other bytes is written again; the service gets what was made."""
    step = Step(tmp_path, made, there, sftp=there.sftp)
    there.service.faults.append(Fault("^write", "bytes:5000", after=1))
    with pytest.raises(TargetError):
        await step.run()
    (part,) = (there.service.base / "transfer").iterdir()
    data = bytearray(part.read_bytes())
    data[100] ^= 0xFF
    part.write_bytes(data)
    await sent(step)
    (whole,) = (there.service.base / "transfer").iterdir()
    assert whole.read_bytes() == made.path.read_bytes()


async def test_a_part_of_another_package_is_not_gone_on_with(
    tmp_path: Path, made: Sip, there: Served
) -> None:
    """Nor a longer one."""
    step = Step(tmp_path, made, there, sftp=there.sftp)
    (there.service.base / "transfer" / "object-7-01JTESTTESTTESTTESTTESTTEST.tar.incomplete").write_bytes(
        b"x" * 10_000_000
    )
    await sent(step)
    (whole,) = (there.service.base / "transfer").iterdir()
    assert whole.read_bytes() == made.path.read_bytes()


async def test_a_damaged_archive_is_not_handed_over(plain: Step) -> None:
    """Its digest is compared before the last byte counts."""
    data = bytearray(plain.archive.read_bytes())
    data[700] ^= 1
    plain.archive.write_bytes(data)
    with pytest.raises(ItemError, match="not what was made"):
        await plain.run()
    assert not plain.service.handed


async def test_lost_notes_send_nothing_twice(step: Step) -> None:
    """The service is asked by the name, which only this job has."""
    await sent(step)
    step.ctx.ledger.unlink()
    step.ctx.saved = {}
    await sent(step)
    step.service.tick(2)
    for _ in range(3):
        found = await step.run()
    assert isinstance(found, Done)


async def test_a_package_that_vanished_is_waited_for(plain: Step) -> None:
    """Absence proves nothing."""
    await sent(plain)
    for path in (plain.service.base / "transfer").iterdir():
        path.unlink()
    plain.service.transfers.clear()
    assert isinstance(await plain.run(), Wait)
    assert sum(plain.service.handed.values()) == 1


async def test_a_report_that_cannot_be_read_is_for_a_person(tmp_path: Path, made: Sip, there: Served) -> None:
    """After some looks; the thaw looks again."""
    step = Step(tmp_path, made, there, sftp=there.sftp)
    await sent(step)
    there.service.tick(2)
    (path,) = there.service.base.glob("accepted/*/*/*.xml")
    whole = path.read_bytes()
    path.write_bytes(whole[:500])
    found = [await step.run() for _ in range(4)]
    assert [type(one) for one in found] == [Wait, Wait, Wait, Freeze]
    path.write_bytes(whole)
    assert isinstance(await step.run(), Done)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<premis/>",
        b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>',
        b'<premis xmlns="info:lc/xmlns/premis-v2"/>',
    ],
)
def test_what_is_no_report_is_refused(data: bytes) -> None:
    """Whatever a service puts there."""
    from dittohead.workers.submit import report

    with pytest.raises(report.BadReport):
        report.read(data)


# -- who it is spoken to -----------------------------------------------------------------------


async def test_another_host_key_is_refused(tmp_path: Path, made: Sip, there: Served) -> None:
    """The service is paused; nothing was told to it."""
    import asyncssh

    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    there.known_hosts.write_text(f"[127.0.0.1]:{there.port} {other}")
    step = Step(tmp_path, made, there, sftp=there.sftp)
    with pytest.raises(TargetError, match="host key"):
        await step.run()
    there.known_hosts.write_text("")
    with pytest.raises(TargetError, match="host key"):
        await step.run()
    assert there.service.calls == []


async def test_secrets_are_in_no_error(tmp_path: Path, made: Sip, there: Served) -> None:
    """Wrong ones, and broken ones."""
    step = Step(tmp_path, made, there, sftp=there.sftp)
    for secret in (
        "-----BEGIN OPENSSH PRIVATE KEY-----\nverysecret\n-----END OPENSSH PRIVATE KEY-----\n",
        "verysecret",
    ):
        step.ctx.secrets["sip.key"] = secret
        with pytest.raises(TargetError) as caught:
            await step.run()
        assert "verysecret" not in str(caught.value)
    step = Step(tmp_path, made, there, rest=there.rest)
    step.ctx.secrets["sip.password"] = "verysecret"
    with pytest.raises(TargetError, match="401") as caught:
        await step.run()
    assert "verysecret" not in str(caught.value)


async def doctored(step: Step) -> list[tuple[bool, str]]:
    return [said async for said in SubmitWorker().doctor(step.options, lambda name: step.ctx.secrets[name])]


async def test_doctor(step: Step) -> None:
    """All is well but for the password that goes over plain HTTP; then a directory is missing."""
    said = await doctored(step)
    assert [text for ok, text in said if not ok] == (
        [f"{step.served.url}: the password is sent unencrypted. Use https://"] if step.options.rest else []
    )
    if step.options.sftp is None:
        return
    (step.service.base / "accepted").rename(step.service.base / "gone")
    assert any(not ok and "accepted is not there" in text for ok, text in await doctored(step))
    (step.service.base / "gone").rename(step.service.base / "accepted")


async def test_a_service_that_is_down_is_paused(tmp_path: Path, made: Sip) -> None:
    """No object fails."""
    with served(service(tmp_path, made)) as there:
        steps = [Step(tmp_path, made, there, **ways(there, way)) for way in ("sftp", "rest")]
    for step in steps:
        with pytest.raises(TargetError, match="cannot be reached"):
            await step.run()
        assert any(not ok for ok, _ in await doctored(step))


# -- taking back -------------------------------------------------------------------------------


async def undone(step: Step, *, dry_run: bool = False) -> list[tuple[bool, str]]:
    said: list[tuple[bool, str]] = []
    ctx = UndoContext(
        job_id=step.ctx.job_id, ledger=step.ctx.ledger, locations=lambda: iter(()), env={}, dry_run=dry_run,
        secret=lambda name: step.ctx.secrets[name], report=lambda ok, uri, text: said.append((ok, text)),
    )  # fmt: skip
    await SubmitWorker().undo(ctx, step.options)
    return said


async def test_undo_before_the_service_begins(plain: Step) -> None:
    """What only waits is taken back."""
    await sent(plain)
    assert [ok for ok, _ in await undone(plain, dry_run=True)] == [True]
    assert [ok for ok, _ in await undone(plain)] == [True]
    plain.service.tick(3)
    assert plain.service.kept == {}


async def test_undo_after_it_was_accepted(plain: Step) -> None:
    """It stays, and that is said."""
    await sent(plain)
    plain.service.tick(2)
    assert isinstance(await plain.run(), Done)
    ((ok, text),) = await undone(plain)
    assert not ok
    assert "accepted" in text
    assert len(plain.service.kept) == 1


async def test_what_a_job_leaves_unfinished_is_removed(plain: Step) -> None:
    """The part; not a package that was handed over."""
    where = "^write" if plain.options.sftp else "PATCH"
    plain.service.faults.append(Fault(where, "bytes:1000"))
    with contextlib.suppress(StepError):
        await plain.run()
    assert plain.ctx.outside.exists()
    await SubmitWorker().let_go(plain.ctx.outside, lambda name: plain.ctx.secrets[name])
    assert list((plain.service.base / "transfer").iterdir()) == []
    assert not plain.service.transfers


# -- versions ----------------------------------------------------------------------------------


def before(*texts: tuple[EventType, str, str]) -> list[Event]:
    at = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    return [Event(type=kind, outcome=outcome, detail=text, agent="x", at=at) for kind, outcome, text in texts]


async def test_an_update_after_the_first_version(plain: Step, tmp_path: Path, update: Sip) -> None:
    """The service takes it, as CREATEDATE is that of the first; what is no update is refused before it is sent."""
    await sent(plain)
    plain.service.tick(2)
    assert isinstance(await plain.run(), Done)
    past = [*plain.ctx.events]
    again = Step(tmp_path, plain.made, plain.served, job_id="01JSECOND", **_places(plain))
    again.ctx.before = past
    with pytest.raises(ItemError, match="preserved already"):
        await again.run()
    newer = Step(tmp_path, update, plain.served, job_id="01JTHIRD", **_places(plain))
    newer.ctx.before = past
    await sent(newer)
    plain.service.tick(2)
    assert isinstance(await newer.run(), Done)
    assert len(plain.service.kept["Museum_Object_7"]["names"]) == 2


async def test_an_earlier_package_without_an_answer(plain: Step, tmp_path: Path) -> None:
    """A person decides; what was rejected meanwhile is in nobody's way."""
    await sent(plain)
    past = [*plain.ctx.events]
    second = Step(tmp_path, plain.made, plain.served, job_id="01JSECOND", **_places(plain))
    second.ctx.before = past
    frozen = await second.run()
    assert isinstance(frozen, Freeze)
    assert frozen.reason == submission.OPEN
    assert sum(plain.service.handed.values()) == 1
    second.ctx.saved = {}
    plain.service.rejects = "no"
    plain.service.tick(2)
    await sent(second)
    plain.service.transfers.clear()


def test_events_are_read_as_they_are_written() -> None:
    """Also of names with spaces."""
    told = before(
        (EventType.TRANSFER, "success", accession.sent("a.tar", "Object 1", "sftp://x", "00")),
        (EventType.TRANSFER, "success", accession.sent("b.tar", "Object 1", "sftp://x", "00")),
        (EventType.ACCESSION, "failure", accession.rejected("a.tar", "Object 1", "no: 1")),
        (EventType.TRANSFER, "success", accession.sent("c.tar", "Object 2", "sftp://x", "00")),
    )
    assert accession.unanswered(told, "Object 1") == ["b.tar"]
    assert accession.first_version(told, "Object 1") == ""
    told += before(
        (
            EventType.ACCESSION,
            "success",
            accession.accepted("b.tar", "Object 1", aip="x-1", created="2026-01-01T00:00:00Z"),
        )
    )
    assert accession.unanswered(told, "Object 1") == []
    assert accession.first_version(told, "Object 1") == "2026-01-01T00:00:00Z"
    assert accession.accessions(told, "Object 1")[0].aip == "x-1"


# -- options and notes -------------------------------------------------------------------------

REST = {"url": "https://x.example", "user": "u", "credential": "c", "contract": "k"}


@pytest.mark.parametrize("wrong", [
    {}, {"rest": REST, "ask_most": "1m"}, {"rest": REST, "ask_most": "11d"}, {"rest": REST, "file": "a/b"},
    {"rest": REST, "freeze_on": [{"match": "(", "reason": "x"}]}, {"rest": {**REST, "url": "https://u:p@x"}},
])  # fmt: skip
def test_options_that_are_refused(wrong: dict[str, Any]) -> None:
    """With what to do."""
    with pytest.raises(ValidationError):
        SubmitOptions.model_validate(wrong)


@pytest.mark.parametrize(("name", "number", "wanted"), [
    ("a.tar", 1, "a-J.tar"), ("a.tar", 2, "a-J-2.tar"), ("a-J.tar.gz", 1, "a-J.tar.gz"), ("a-J.tar.gz", 3, "a-J-3.tar.gz"), ("a", 1, "a-J"),
])  # fmt: skip
def test_names(name: str, number: int, wanted: str) -> None:
    """No two jobs and no two attempts have the same."""
    one: Any = submission.Submission.__new__(submission.Submission)
    one._options = SubmitOptions.model_validate({"rest": REST})
    one._ctx = type("C", (), {"job_id": "J"})()
    made = submission.PackageFile(root=Path("/"), path=name.encode(), size=1, sha256="")
    assert one._name(made, number) == wanted


def test_half_a_line_of_a_crash_is_no_note(tmp_path: Path) -> None:
    """What is before it counts."""
    path = tmp_path / "a" / "ledger"
    path.parent.mkdir()
    line = {"number": 1, "name": "a", "object_id": "b", "sha256": "c", "size": 1, "at": 1.0}
    path.write_text(json.dumps({"worker": "submit"}) + "\n" + json.dumps(line) + '\n{"number": 1, "comm')
    (one,) = notes.read(path)
    assert not one.may_be_there
