"""preserve: hand a package to a preservation service over SFTP, and wait for its answer.

The service takes NAME.tar in transfer/, which was called NAME.tar.incomplete while it was sent. It moves it
away, works on it for hours or days, and leaves a report, which either is
accepted/DAY/NAME/NAME-ingest-report.xml or rejected/DAY/NAME/NAME-ingest-report.xml.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from pathlib import Path

from pydantic import Field

from dittohead import (
    Done,
    Event,
    EventType,
    ItemError,
    Location,
    Options,
    Output,
    StepContext,
    StepResult,
    TargetError,
    Wait,
    Worker,
)


class PreserveOptions(Options):
    """What the step may be told."""

    host: str = Field(description="USER@HOST of the service.")
    base: str = Field(".", description="The directory that holds transfer, accepted and rejected.")
    identity: str = Field(description="File of the private key.")
    known_hosts: str = Field(description="File that holds the service's host key.")
    ask_every: float = Field(3600.0, gt=0, description="How long to wait before asking again, seconds.")


class PreserveWorker(Worker[PreserveOptions]):
    """Hands one package to the preservation service and waits until it is accepted."""

    name = "preserve"
    Options = PreserveOptions
    makes_outputs = True

    def target(self, options: PreserveOptions) -> str:
        """Return the service's name: it is paused when it is down, and its jobs wait."""
        return options.host

    async def run(self, ctx: StepContext, options: PreserveOptions) -> StepResult:
        """Send the package if it is not there yet, then look for the answer.

        A crash at any point is followed by the same look: what was answered or sent is not sent again.
        """
        if not re.fullmatch(r"[\w.-]+", ctx.name, re.ASCII):
            raise ItemError("the service takes names of letters, digits and ._- only", where=ctx.name)
        # A package of its own for each job: an answer to an earlier one is none to this.
        sip = f"{ctx.name}-{ctx.job_id}"
        verdict = await self._verdict(ctx, options, sip)
        if verdict is None and "sent" not in ctx.saved:
            await self._send(ctx, options, sip)
            await ctx.save({"sent": sip})
            ctx.event(Event(type=EventType.TRANSFER, outcome="success", detail=f"{sip}.tar", agent="sftp"))
        if verdict is None:
            return Wait(
                reason=f"{sip} is with the preservation service",
                seconds=options.ask_every,
                state={"sent": sip},
            )
        return await self._read(ctx, options, sip, verdict)

    async def _verdict(self, ctx: StepContext, options: PreserveOptions, sip: str) -> str | None:
        """Return the path of the report, None when there is none yet."""
        places = (
            f"{options.base}/{word}/*/{sip}/{sip}-ingest-report.xml" for word in ("accepted", "rejected")
        )
        # With "-" sftp goes on where nothing fits.
        said = await _sftp(ctx, options, *(f"-ls -1 {place}" for place in places))
        return next((line.strip() for line in said.splitlines() if line.startswith(options.base)), None)

    async def _send(self, ctx: StepContext, options: PreserveOptions, sip: str) -> None:
        packages = [entry for entry in ctx.source.entries() if not entry.is_dir]
        if len(packages) != 1:
            raise ItemError(f"one package is required, and there are {len(packages)}")
        there = f"{options.base}/transfer/{sip}.tar"
        said = await _sftp(ctx, options, f"-ls -1 {there}")
        if there in said.split("\n"):
            return  # sent right before a crash
        here = ctx.source.root / packages[0].path.decode()
        # SFTP knows no checksums: the size is compared, and the package holds its own checksums.
        said = await _sftp(ctx, options, f'put "{here}" {there}.incomplete', f"ls -ln {there}.incomplete")
        sizes = [
            line.split()[4] for line in said.splitlines() if line.endswith(".incomplete") and line[0] == "-"
        ]
        if sizes != [str(packages[0].size)]:
            raise TargetError(f"{packages[0].size} bytes were sent, and {sizes} arrived", where=options.host)
        await ctx.fence()
        await _sftp(ctx, options, f"rename {there}.incomplete {there}")

    async def _read(self, ctx: StepContext, options: PreserveOptions, sip: str, there: str) -> StepResult:
        report = ctx.work / "ingest-report.xml"
        await _sftp(ctx, options, f'get {there} "{report}"')
        data = await asyncio.to_thread(Path(report).read_bytes)
        digest = hashlib.sha256(data).hexdigest()
        if there.startswith(f"{options.base}/rejected/"):
            said = " ".join(re.sub(r"<[^>]*>", " ", data.decode("utf-8", "replace")).split())[:300]
            raise ItemError(
                f"the preservation service has rejected it: {said}",
                where=there,
                hint="Fix the object, then dittohead rerun: it becomes a package of its own",
            )
        ctx.output(Output(path=b"ingest-report.xml", size=len(data), sha256=digest))
        uri = f"sftp://{options.host}/{there}"
        ctx.location(Location(uri=uri, path=b"", size=len(data), sha256=digest, verified_by="read back"))
        return Done(detail=f"{sip} is accepted")


async def _sftp(ctx: StepContext, options: PreserveOptions, *commands: str) -> str:
    """Run commands at the service and return what it prints. Raises: TargetError."""
    given = ["-oBatchMode=yes", "-oStrictHostKeyChecking=yes", f"-oUserKnownHostsFile={options.known_hosts}"]
    process = await asyncio.create_subprocess_exec(
        "sftp", "-q", "-b", "-", f"-oIdentityFile={options.identity}", *given, options.host,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(ctx.env),
    )  # fmt: skip
    try:
        out, err = await process.communicate("".join(f"{command}\n" for command in commands).encode())
    finally:
        if process.returncode is None:  # cancelled: nothing may be left running
            process.kill()
            await process.wait()
    if process.returncode:
        complaint = err.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise TargetError(complaint or f"sftp ended with {process.returncode}", where=options.host)
    return out.decode("utf-8", "replace")
