"""One try of one submit step: what has been done, what is seen at the service, and what follows.

The step looks for what may have been sent, and never sends it again. So each call that cannot be repeated is
noted durably before it is made:

    1 intend (name, digest)   2 send all bytes   3 note "committed"   4 hand over   5 note "sent"
    6 let the archive go      7 record the transfer   8 wait   9 keep the reports   10 note, and record

After a crash between 3 and 5 the service may have the package, even where nothing of it can be seen.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

from dittohead.contract.worker import Done, Freeze, Remake, StepContext, StepResult, Wait
from dittohead.model import units
from dittohead.model.errors import ItemError, TargetError, TransientError
from dittohead.model.events import AGENT, Event, EventType
from dittohead.model.records import Location, Output
from dittohead.model.text import short
from dittohead.system import fail_points, files, patterns
from dittohead.toolkit.backoff import wait_s
from dittohead.toolkit.intent_log import IntentLog
from dittohead.toolkit.sip import accession
from dittohead.workers.submit import report
from dittohead.workers.submit.notes import Attempt, SubmitNotes, now
from dittohead.workers.submit.options import SubmitOptions
from dittohead.workers.submit.over_rest import ReportsByObject
from dittohead.workers.submit.report import BadReport, IngestReport
from dittohead.workers.submit.service import PackageFile, PreservationService, Sight

#: A wait grows with the time since the package was handed over, by this part of it.
_GROWTH = 0.2

#: Seconds until a service that has answered with a fault is asked again, at first and at most.
_FAULT_S, _FAULT_MOST_S = 10.0, 3600.0

#: After so many faults in a row the service is taken to be down, and is paused.
_FAULTS = 5

#: Looks at a report that cannot be used, before a person has to see it.
_LOOKS = 3

#: Reasons for which a job is frozen. They are the same for all jobs, so that these can be thawed together.
SILENT = "the preservation service has not answered in time; ask it about the package, then thaw the job"
EXPIRED = "the answer of the preservation service may have expired unseen; ask for it, then thaw the job"
UNCLEAR = "the report of the preservation service cannot be used; ask it for another, then thaw the job"
OPEN = (
    "an earlier job has sent a package of this object, which is not answered; ask the service, and thaw the "
    "job to send this one as well"
)
PRESERVED = (
    "the package of an earlier job was accepted after that job had ended; make this one an update of it, or "
    "thaw the job to send it as it is"
)


class Submission:
    """One try."""

    def __init__(
        self,
        ctx: StepContext,
        options: SubmitOptions,
        service: PreservationService,
        reports: ReportsByObject | None,
        book: SubmitNotes,
    ) -> None:
        self._ctx, self._options, self._service = ctx, options, service
        self._reports, self._book = reports, book
        self._frozen = str(ctx.saved.get("frozen", ""))  #: what a person has decided on

    async def run(self) -> StepResult:
        """Do what is next. Raises: ItemError: it was rejected, or cannot be sent; TargetError."""
        try:
            return await self._run()
        except TransientError as error:
            return self._faulty(error)

    async def _run(self) -> StepResult:
        attempts = list(self._book.attempts) or [await self._first()]
        sights = await self._sights(attempts)
        for attempt, sight in zip(attempts, sights, strict=True):
            if sight.state == "accepted":  # of whichever attempt, and whatever came later: that is final
                return await self._answered(attempt, sight)
        attempt, sight = attempts[-1], sights[-1]
        if sight.state == "rejected" or attempt.answer == "rejected":
            if self._is_decided(attempt):
                return await self._send_another(attempt)
            return await self._answered(attempt, sight)
        if sight.state == "whole" or (sight.state == "absent" and attempt.may_be_there):
            return await self._waiting(attempt, sight)
        return await self._send(attempt, sight)

    def _is_decided(self, attempt: Attempt) -> bool:
        """Tell whether a person has let the job go on after this rejection.

        It was thawed, or its step begins afresh (`retry`): while an attempt is under way its number is saved.
        """
        if attempt.answer != "rejected":
            return False
        return self._frozen == "rejected" or "attempt" not in self._ctx.saved

    async def _sights(self, attempts: list[Attempt]) -> list[Sight]:
        sights = await self._service.sights_of(attempts)
        for number, (attempt, sight) in enumerate(zip(attempts, sights, strict=True)):
            if sight.state in ("absent", "whole") and attempt.may_be_there and self._reports is not None:
                answer = await self._reports.sights_of(attempt)
                sights[number] = sight if answer.state == "absent" else answer
        return sights

    # -- sending -----------------------------------------------------------------------------

    async def _first(self) -> Attempt:
        """Return the attempt that is the first, as far as notes tell; they may have been lost."""
        package = await self._package()
        return self._attempt(package, 1)

    async def _package(self) -> PackageFile:
        """Return the file to be sent; its bytes may have been let go. Raises: ItemError."""
        found = [entry for entry in self._ctx.source.entries() if not entry.is_dir]
        if len(found) != 1 or not found[0].size:
            raise ItemError(
                f"one package is required, and there are {len(found)} files",
                where=self._ctx.name,
                hint="Set from: to a step that makes one archive, such as package",
            )
        (entry,) = found
        return PackageFile(root=self._ctx.source.root, path=entry.path, size=entry.size, sha256=entry.sha256)

    def _attempt(self, package: PackageFile, number: int) -> Attempt:
        told = self._told()
        return Attempt(
            number=number,
            name=self._name(package, number),
            object_id=self._options.object_id or str(told.get("package", "")) or self._ctx.name,
            sha256=package.sha256,
            size=package.size,
            at=now(),
            created=str(told.get("created", "")),
        )

    def _told(self) -> Mapping[str, Any]:
        """Return what the step that made the package says of it."""
        made = self._ctx.source.made
        output = next(made.outputs(), None) if made is not None else None
        return output.detail if output is not None else {}

    def _name(self, package: PackageFile, number: int) -> str:
        """Return a name at the service that no other job and no other attempt has."""
        own = self._options.file or os.fsdecode(package.path).rpartition("/")[2]
        stem, ending = _split(own)
        if self._ctx.job_id not in own:
            stem += f"-{self._ctx.job_id}"
        name = f"{stem}-{number}{ending}" if number > 1 else f"{stem}{ending}"
        if not name.isascii() or not all(char.isalnum() or char in "-_.:+=@" for char in name):
            hint = "Set file: of the step to a name with {id}"
            raise ItemError(
                "a package's name may hold letters, digits and -_.:+=@ only", where=name, hint=hint
            )
        return name

    async def _send_another(self, before: Attempt) -> StepResult:
        """Send a package under a new name, after one was rejected and a person has decided to go on."""
        if self._ctx.source.released:
            return Remake(state=dict(self._ctx.saved))
        attempt = self._attempt(await self._package(), before.number + 1)
        (sight,) = await self._sights([attempt])
        return await self._send(attempt, sight)

    async def _send(self, attempt: Attempt, sight: Sight) -> StepResult:
        if self._ctx.source.released:
            return Remake(state=dict(self._ctx.saved))
        if (why := await self._earlier(attempt)) is not None:
            return why
        package = await self._package()
        if attempt.number > len(self._book.attempts):
            attempt = await self._book.intend(attempt)
        elif package.sha256 != attempt.sha256 and not attempt.committed:  # made again since
            sight = Sight(state=sight.state, handle=sight.handle)
            attempt = await self._book.change(attempt, sha256=package.sha256, size=package.size)
            if attempt.handle or sight.handle:
                await self._service.withdraw(attempt, whole=False, dry_run=False)
                sight, attempt = Sight(state="absent"), await self._book.change(attempt, handle="")
        fail_points.point("submit.intended")
        await self._ctx.save({"attempt": attempt.number})
        await asyncio.to_thread(self._note_outside, attempt)
        await self._service.send(
            attempt,
            package,
            sight,
            begun=self._begun,
            commit=self._commit,
            progress=lambda done: self._ctx.progress(done, package.size, "bytes"),
        )
        fail_points.point("submit.handed_over")
        return await self._waiting(self._now(), Sight(state="whole"))

    def _now(self) -> Attempt:
        attempt = self._book.last
        assert attempt is not None  # noqa: S101  # it was intended
        return attempt

    def _note_outside(self, attempt: Attempt) -> None:
        """Note what is to be removed at the service when the job ends before the package is handed over."""
        places = self._options.model_dump(mode="json", include={"sftp", "rest"}, exclude_none=True)
        log = IntentLog(self._ctx.outside, {"worker": "submit", "job": self._ctx.job_id})
        try:
            log.write([{"options": places, "attempt": asdict(attempt)}], durable=True)
        finally:
            log.close()

    async def _begun(self, handle: str) -> Attempt:
        attempt = await self._book.change(self._now(), handle=handle)
        await asyncio.to_thread(self._note_outside, attempt)
        return attempt

    async def _commit(self) -> None:
        await self._ctx.fence()
        await self._book.change(self._now(), committed=now())
        fail_points.point("submit.committed")

    async def _earlier(self, attempt: Attempt) -> Freeze | None:
        """Look for packages of the same object that earlier jobs have sent. Raises: ItemError."""
        if attempt.number > 1 or self._frozen == "earlier":
            return None
        events = await self._ctx.history(earlier=True)
        preserved = accession.accessions(events, attempt.object_id)
        if preserved and self._told().get("update") is False:
            raise ItemError(
                f"this object is preserved already, as {preserved[-1].name}, and this does not update it",
                where=attempt.object_id,
                hint="Set update_of: history of the step package; then: dittohead rerun",
            )
        names = accession.unanswered(events, attempt.object_id)
        before = [
            Attempt(number=n, name=name, object_id=attempt.object_id, sha256="", size=0, at=0.0, sent=1.0)
            for n, name in enumerate(names, 1)
        ]
        states = {sight.state for sight in await self._sights(before)} if before else set()
        state = {"frozen": "earlier"}
        if "accepted" in states:
            return Freeze(reason=PRESERVED, state=state)
        return Freeze(reason=OPEN, state=state) if states & {"absent", "whole", "part"} else None

    # -- waiting -----------------------------------------------------------------------------

    async def _waiting(self, attempt: Attempt, sight: Sight) -> StepResult:
        if attempt.number > len(self._book.attempts):  # notes were lost; the service has it
            attempt = await self._book.intend(attempt)
        if not attempt.sent:
            attempt = await self._book.change(attempt, sent=attempt.committed or now())
        fail_points.point("submit.noted")
        await asyncio.to_thread(self._ctx.outside.unlink, missing_ok=True)
        await self._ctx.release()
        fail_points.point("submit.released")
        saved = self._ctx.saved
        began = now() if self._frozen else float(saved.get("since", attempt.sent))
        asked = began if self._frozen else float(saved.get("asked", attempt.sent))
        state = {"attempt": attempt.number, "since": began, "asked": now(), "told": attempt.number}
        if saved.get("told") != attempt.number:
            self._tell_sent(attempt)
        waited = now() - began
        if waited >= self._options.answer_within or now() - asked >= self._options.reports_kept:
            reason = SILENT if waited >= self._options.answer_within else EXPIRED
            return Freeze(reason=reason, state={**state, "frozen": "silent"})
        reason = (
            f"{attempt.name} is with the preservation service since {_shown(attempt.sent)}; an answer is due "
            f"within {units.duration(self._options.answer_within)}"
        )
        return Wait(reason=reason, seconds=self._pause_s(now() - attempt.sent), state=state)

    def _pause_s(self, since_s: float) -> float:
        least, most = self._options.ask_first, self._options.ask_most
        return min(max(least, since_s * _GROWTH), most)

    def _tell_sent(self, attempt: Attempt) -> None:
        text = accession.sent(attempt.name, attempt.object_id, self._options.address, attempt.sha256)
        at = datetime.fromtimestamp(attempt.sent, UTC)
        self._ctx.event(Event(type=EventType.TRANSFER, outcome="success", detail=text, agent=AGENT, at=at))

    def _faulty(self, error: TransientError) -> StepResult:
        """Wait after a fault of the service: it is not the fault of the package, and not counted as a try.

        Raises: TargetError: it is the last of several.
        """
        faults = int(self._ctx.saved.get("faults", 0)) + 1
        if faults >= _FAULTS and error.retry_after_s is None:
            raise TargetError(error.what, where=error.where, hint=error.hint) from error
        wait = wait_s(faults, first_s=_FAULT_S, most_s=_FAULT_MOST_S, asked_s=error.retry_after_s)
        return Wait(reason=str(error), seconds=wait, state={**self._ctx.saved, "faults": faults})

    # -- the answer --------------------------------------------------------------------------

    async def _answered(self, attempt: Attempt, sight: Sight) -> StepResult:
        if attempt.number > len(self._book.attempts) or not attempt.sent:
            waiting = await self._waiting(attempt, sight)  # notes first
            return replace(waiting, seconds=0.0) if isinstance(waiting, Wait) else waiting
        if self._ctx.saved.get("told") != attempt.number and sight.state == "rejected" and not attempt.answer:
            state = {**self._ctx.saved, "attempt": attempt.number, "told": attempt.number}
            self._tell_sent(attempt)  # recorded before a failure, which keeps no successes
            return Wait(reason="the answer is there", seconds=0.0, state=state)
        fail_points.point("submit.answered")
        if attempt.answer == "rejected" and sight.state not in ("accepted", "rejected"):
            return self._rejected(attempt, attempt.why)  # noted before a crash; the report may be gone
        try:
            said = await self._kept(attempt, sight)
        except BadReport as error:
            return self._unclear(attempt, sight, str(error))
        fail_points.point("submit.kept")
        if sight.state == "accepted":
            return await self._accepted(attempt, sight, said)
        why = said.failure or "the report names no failure"
        attempt = await self._book.change(attempt, answer="rejected", why=why)
        return self._rejected(attempt, why)

    def _unclear(self, attempt: Attempt, sight: Sight, why: str) -> StepResult:
        """Wait for a report that can be used: it may be written just now. A person decides in the end."""
        looks = 1 if self._frozen == "unclear" else int(self._ctx.saved.get("looks", 0)) + 1
        state = {**self._ctx.saved, "attempt": attempt.number, "looks": looks, "frozen": ""}
        reason = f"{attempt.name} is {sight.state}, and its report cannot be used yet: {why}"
        self._ctx.log.warning("report unclear", where=sight.where, why=why)
        if looks > _LOOKS:
            return Freeze(reason=UNCLEAR, state={**state, "frozen": "unclear"})
        return Wait(reason=reason, seconds=self._pause_s(0.0), state=state)

    async def _kept(self, attempt: Attempt, sight: Sight) -> IngestReport:
        """Fetch the reports of an answer and keep them durably.

        Raises: BadReport: there is none yet, or it cannot be used; StepError.
        """
        fetch = self._service.fetch
        if self._reports is not None and "/api/2.0/" in sight.where:
            fetch = self._reports.fetch
        found = await fetch(attempt, sight)
        if "xml" not in found:
            raise BadReport("it is not there")
        said = await asyncio.to_thread(report.read, found["xml"], self._options.schemas)
        if said.object_id and said.object_id != attempt.object_id:
            raise BadReport(f"it is about {short(said.object_id)}, and not about {attempt.object_id}")
        if said.is_accepted != (sight.state == "accepted"):
            raise BadReport(f"its events say otherwise ({said.failure or 'none failed'})")
        for ending, data in found.items():
            path = self._ctx.work / f"{attempt.name}-ingest-report.{ending}"
            await asyncio.to_thread(files.write_durably, path, data)
        return said

    async def _accepted(self, attempt: Attempt, sight: Sight, said: IngestReport) -> Done:
        if attempt.answer != "accepted":
            attempt = await self._book.change(attempt, answer="accepted", why="")
        await self._ctx.release()
        if self._ctx.saved.get("told") != attempt.number:
            self._tell_sent(attempt)
        for path in sorted(
            self._ctx.work.glob("*-ingest-report.*")
        ):  # also of those that were rejected before
            digest, size = await asyncio.to_thread(files.sha256_file, path)
            self._ctx.output(Output(path=os.fsencode(path.name), size=size, sha256=digest))
        text = accession.accepted(attempt.name, attempt.object_id, aip=said.aip, created=attempt.created)
        event = Event(type=EventType.ACCESSION, outcome="success", detail=text, agent=AGENT)
        self._ctx.event(event)
        how = f"ingest report: accepted{f' as AIP {said.aip}' if said.aip else ''}"
        package = next((one.path for one in self._ctx.source.entries() if not one.is_dir), b"")
        self._ctx.location(
            Location(uri=sight.where, path=package, size=attempt.size, sha256=attempt.sha256, verified_by=how)
        )
        words = f"{attempt.name} is accepted{f' as AIP {said.aip}' if said.aip else ''}"
        return Done(detail=f"{words}, {units.duration(max(now() - attempt.sent, 0.0))} after it was sent")

    def _rejected(self, attempt: Attempt, why: str) -> StepResult:
        """Freeze the job where a rule says so. Raises: ItemError: otherwise."""
        text = accession.rejected(attempt.name, attempt.object_id, why)
        event = Event(type=EventType.ACCESSION, outcome="failure", detail=text, agent=AGENT)
        self._ctx.event(event)
        for rule in self._options.freeze_on:
            if patterns.Pattern(rule.match).is_in(why):
                told = attempt.number
                return Freeze(reason=rule.reason, state={"frozen": "rejected", "attempt": told, "told": told})
        kept = self._ctx.work / f"{attempt.name}-ingest-report.xml"
        raise ItemError(
            f"the preservation service has rejected it: {why}",
            where=str(kept),
            hint="Correct the folder, and run it again as a new package: dittohead rerun "
            f"{self._ctx.job_id}. To send it again as it is: dittohead retry {self._ctx.job_id}",
        )


def _split(name: str) -> tuple[str, str]:
    """Return a name without its ending, and the ending, such as ".tar.gz"."""
    for ending in (".tar.gz", ".tar.bz2", ".tar", ".zip"):
        if name.endswith(ending) and name != ending:
            return name.removesuffix(ending), ending
    return name, ""


def _shown(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
