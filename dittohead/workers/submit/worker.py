"""submit: hand a package to a preservation service, and wait for its answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from importlib import util
from typing import Any

from dittohead.contract.worker import Planned, StepContext, StepResult, UndoContext, Worker
from dittohead.model.errors import ItemError, StepError
from dittohead.model.records import Location, Output
from dittohead.model.text import display
from dittohead.toolkit import intent_log
from dittohead.workers.submit import notes, over_rest
from dittohead.workers.submit.notes import Attempt, SubmitNotes
from dittohead.workers.submit.options import SubmitOptions
from dittohead.workers.submit.over_rest import ReportsByObject, RestService
from dittohead.workers.submit.service import PreservationService
from dittohead.workers.submit.submission import Submission

Said = tuple[bool, str]


class SubmitWorker(Worker[SubmitOptions]):
    """Sends each package once, waits for days, and keeps what the service says of it."""

    name = "submit"
    Options = SubmitOptions
    makes_outputs = True
    delivers = True
    default_limit = 4

    def check(self, options: SubmitOptions) -> list[str]:
        """See that the library for SFTP and the files are there."""
        found = []
        if options.sftp is not None:
            if util.find_spec("asyncssh") is None:
                found.append("asyncssh is not installed; type: pip install 'dittohead[preservation]'")
            if not options.sftp.known_hosts.is_file():
                hint = "ask the service for its host key, and put it there"
                found.append(f"known_hosts: {options.sftp.known_hosts} does not exist; {hint}")
        return found

    def stage(self, options: Mapping[str, Any]) -> str:
        """Call a folder that was accepted."""
        return "preserved"

    def target(self, options: SubmitOptions) -> str:
        """Return the service."""
        return options.address

    async def doctor(self, options: SubmitOptions, secret: Callable[[str], str]) -> AsyncIterator[Said]:
        """See that the service is the one it should be, lets us in, and has its directories."""
        if options.rest is not None and options.rest.url.startswith("http:"):
            yield False, f"{options.rest.url}: the password is sent unencrypted. Use https://"
        try:
            async with opened(options, secret) as (service, reports):
                async for said in service.examined():
                    yield said
                if reports is not None:
                    async for said in reports.examined():
                        yield said
        except StepError as error:
            yield False, str(error)

    async def plan(self, ctx: StepContext, options: SubmitOptions) -> AsyncIterator[Planned]:
        """Yield the package that would be sent, and the answer that would be waited for."""
        for entry in ctx.source.entries():
            if not entry.is_dir:
                uri = f"{options.address}/"
                ctx.location(Location(uri=uri, path=entry.path, size=0, sha256="", verified_by=""))
                detail = "then wait for the answer"
                yield Planned(action="send", what=display(entry.path), where=options.address, detail=detail)
        ctx.output(Output(path=b"ingest-report.xml", size=0, sha256=""))

    async def run(self, ctx: StepContext, options: SubmitOptions) -> StepResult:
        """Look where the package is, and do what is next. Whatever may have been sent is never sent again."""
        head = {"worker": self.name, "job": ctx.job_id}
        book = await SubmitNotes.opened(ctx.ledger, head)
        try:
            async with opened(options, ctx.secret) as (service, reports):
                return await Submission(ctx, options, service, reports, book).run()
        finally:
            await book.close()

    async def let_go(self, notes: Any, secret: Callable[[str], str]) -> None:
        """Remove what was sent of a package that was not handed over."""
        for line in await asyncio.to_thread(lambda: list(intent_log.read(notes))):
            if "options" in line:
                options = SubmitOptions.model_validate(line["options"])
                async with opened(options, secret) as (service, _):
                    await service.withdraw(Attempt(**line["attempt"]), whole=False, dry_run=False)

    async def undo(self, ctx: UndoContext, options: SubmitOptions) -> None:
        """Take packages back that the service has not begun with. What it has accepted stays."""
        attempts = await asyncio.to_thread(notes.read, ctx.ledger)
        if not attempts:
            return
        async with opened(options, ctx.secret) as (service, _):
            sights = await service.sights_of(attempts)
            for attempt, sight in zip(attempts, sights, strict=True):
                uri = sight.where or f"{options.address}/{attempt.name}"
                if sight.state in ("part", "whole"):
                    ctx.report(
                        *_in_order(uri, await service.withdraw(attempt, whole=True, dry_run=ctx.dry_run))
                    )
                elif sight.state == "accepted":
                    ctx.report(False, uri, "it was accepted: only the service can remove it")
                elif sight.state == "absent" and attempt.may_be_there and not attempt.answer:
                    ctx.report(False, uri, "the service has taken it, and has not answered: ask the service")


def _in_order(uri: str, said: Said) -> tuple[bool, str, str]:
    return said[0], uri, said[1]


@contextlib.asynccontextmanager
async def opened(
    options: SubmitOptions, secret: Callable[[str], str]
) -> AsyncIterator[tuple[PreservationService, ReportsByObject | None]]:
    """Open a service, and what else can be asked for reports.

    Raises: ItemError: there is no such credential; TargetError.
    """
    async with contextlib.AsyncExitStack() as stack:
        session = None
        if options.rest is not None:
            password = secret(options.rest.credential)
            session = await stack.enter_async_context(over_rest.connected(options.rest, password))
        if options.sftp is None:
            assert options.rest is not None and session is not None  # noqa: S101, PT018  # by the validator
            yield RestService(options.rest, session, options.part), None
            return
        try:
            from dittohead.workers.submit.over_sftp import SftpService  # it loads asyncssh
        except ImportError:
            raise ItemError(
                "asyncssh is not installed", hint="Type: pip install 'dittohead[preservation]'"
            ) from None
        try:
            hosts = await asyncio.to_thread(options.sftp.known_hosts.read_text)
        except (OSError, UnicodeDecodeError) as error:
            hint = "Put the service's host key there"
            raise ItemError(
                f"known_hosts cannot be read ({error})", where=str(options.sftp.known_hosts), hint=hint
            ) from error
        service = SftpService(options.sftp, secret(options.sftp.key), hosts)
        also = None
        if options.rest is not None and session is not None:
            also = ReportsByObject(options.rest, session)
        yield service, also
