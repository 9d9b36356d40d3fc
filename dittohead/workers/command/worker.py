"""command: any program, as an argument list without a shell; what it leaves in {work} is its output."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
import time
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Literal

from pydantic import Field

from dittohead.contract.options import Duration
from dittohead.contract.worker import Done, Options, Planned, StepContext, StepResult, Wait, Worker
from dittohead.model.errors import ItemError, MachineShort, TargetError, TransientError
from dittohead.model.events import Event, EventType
from dittohead.model.records import Output
from dittohead.model.text import counted
from dittohead.system import files
from dittohead.system.machine_faults import said_in
from dittohead.system.process import TAIL, Completed, environment, run
from dittohead.system.program_output import LEAST, Mask, StepLog
from dittohead.system.threads import Stop, in_thread
from dittohead.toolkit.scripts import mistakes

#: EX_TEMPFAIL. Source: sysexits.h.
_TEMPFAIL = 75
#: How a program's end by SIGKILL looks, its own or, through a shell, its child's.
_KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)
#: Characters of what the program said last that a reason repeats.
_SHOWN = 300


class CommandOptions(Options):
    """What a command step may be told."""

    argv: list[str] = Field(
        min_length=1, description="The program (absolute, or found on PATH) and its arguments; no shell."
    )
    timeout: Duration = Field(3600.0, description="The longest one run may take.")
    env: dict[str, str] = Field(default_factory=dict, description="Further environment variables.")
    inherit: list[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]] = Field(
        default_factory=list,
        description="Names of variables of the daemon's own environment that it gets too, such as "
        "`http_proxy`, where they are there. Of the others it gets only what all programs need.",
    )
    secrets: dict[str, str] = Field(
        default_factory=dict,
        description="Environment variables whose values are credentials, by the credential's name; "
        "they are masked in what the program prints.",
    )
    cwd: Literal["work", "payload"] = Field("work", description="The directory it runs in.")
    expect: list[int] = Field(default=[0], description="Exit statuses that mean done.")
    wait_exit: list[int] = Field(
        default=[_TEMPFAIL],
        description="Exit statuses that mean: not yet, ask again. The job waits without a slot; the last "
        "line printed is the reason shown.",
    )
    poll: Duration = Field(600.0, description="How long to wait before asking again.")
    give_up: Duration = Field(14 * 86400.0, description="How long to go on asking.")
    retry_exit: list[int] = Field(default_factory=list, description="Exit statuses of temporary faults.")
    target_exit: list[int] = Field(
        default_factory=list, description="Exit statuses that mean the target is down or full."
    )
    target: str = Field("", description="Name of the outside place it uses, which can be paused.")


class CommandWorker(Worker[CommandOptions]):
    """Runs a program; its exit status decides what happens next."""

    name = "command"
    Options = CommandOptions
    makes_outputs = True

    def check(self, options: CommandOptions) -> list[str]:
        """Find the program, where its name holds no placeholder."""
        program = options.argv[0]
        if "{" in program or shutil.which(program):
            return []
        return [f'the program "{program}" is not there or not executable; install it or give its whole path']

    def mistakes(self, options: CommandOptions) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
        """Find placeholders inside a script: a folder's name would be run as a part of it."""
        for index, what, hint in mistakes(options.argv):
            yield ("argv", index), what, hint

    def target(self, options: CommandOptions) -> str:
        """Return what the options call it."""
        return options.target

    async def plan(self, ctx: StepContext, options: CommandOptions) -> AsyncIterator[Planned]:
        """Yield the program with its arguments; what it would make only it knows."""
        yield Planned(action="run", what=shlex.join(options.argv))

    async def run(self, ctx: StepContext, options: CommandOptions) -> StepResult:
        """Run the program and read its exit status.

        What an earlier, killed try left in {work} is removed first, but not when the program asked
        to be asked again: its work then goes on.
        """
        asked_at = float(ctx.saved.get("asked_at", 0.0)) or time.time()
        if not ctx.saved.get("asked_at"):
            await asyncio.to_thread(files.empty, ctx.work)
        secrets = {key: ctx.secret(name) for key, name in options.secrets.items()}
        short = [key for key, value in secrets.items() if len(value) < LEAST]
        if short:
            raise ItemError(f"the credential for {short[0]} is empty or too short to be one")
        mask = Mask(secrets.values())
        ended = await self._run(ctx, options, secrets, mask)
        well = ended.returncode in options.expect + options.wait_exit
        said = _last_words(ended, mask, well=well)
        ctx.event(
            Event(
                type=EventType.EXECUTION,
                outcome="success" if well else "failure",
                detail=f"{os.path.basename(options.argv[0])}: exit status {ended.returncode}",
                agent=options.argv[0],
            )
        )
        if ended.returncode in options.expect:
            count = await in_thread(lambda stop: _record(ctx, stop))
            return Done(detail=said if not count else f"{counted(count, 'file')} made")
        return self._otherwise(ctx, options, ended.returncode, said, asked_at)

    def _otherwise(
        self, ctx: StepContext, options: CommandOptions, status: int, said: str, asked_at: float
    ) -> StepResult:
        program = os.path.basename(options.argv[0])
        what = f"{program} ended with exit status {status}" + (f": {said}" if said else "")
        if status in options.wait_exit:
            if time.time() - asked_at > options.give_up:
                raise ItemError(f"no answer came within the time given ({said or program})")
            return Wait(
                reason=said or f"{program} says: not yet",
                seconds=options.poll,
                state={"asked_at": asked_at},
            )
        if status in options.retry_exit:
            raise TransientError(what)
        if status in _KILLED:  # by hand or for want of memory: that is not the folder's fault
            raise TransientError(f"{program} was killed from outside", hint="See whether memory ran out")
        if of := said_in(said):
            raise MachineShort(what, of=of)
        if status in options.target_exit:
            raise TargetError(what, where=options.target)
        hint = f"See what it printed: {ctx.log_file()}" if said else "It printed nothing; run it by hand"
        raise ItemError(what, where=f"step {ctx.step}", hint=hint)

    async def _run(
        self, ctx: StepContext, options: CommandOptions, secrets: dict[str, str], mask: Mask
    ) -> Completed:
        program = shutil.which(options.argv[0])
        if program is None:
            raise ItemError("this program is not installed", where=options.argv[0])
        env = {
            **environment(also=options.inherit),
            **ctx.env,
            "DITTOHEAD_JOB": ctx.job_id,
            "DITTOHEAD_NAME": ctx.name,
            "DITTOHEAD_BATCH": ctx.batch,
            "DITTOHEAD_PAYLOAD": str(ctx.payload),
            "DITTOHEAD_SOURCE": str(ctx.source.root),
            "DITTOHEAD_WORK": str(ctx.work),
            **options.env,
            **secrets,
        }
        printed = StepLog(ctx.log_file(), mask)
        try:
            return await run(
                [program, *options.argv[1:]],
                env=env,
                cwd=ctx.work if options.cwd == "work" else ctx.payload,
                timeout_s=options.timeout or None,
                on_output=printed.write,
            )
        except TimeoutError as error:
            raise ItemError(
                f"{os.path.basename(program)} was ended: it took longer than {options.timeout:g} s",
                where=f"step {ctx.step}",
                hint=f"See what it printed: {ctx.log_file()}, or set a longer timeout",
            ) from error
        except PermissionError as error:
            raise ItemError("this program may not be executed", where=program) from error
        finally:
            printed.close()


def _last_words(ended: Completed, mask: Mask, *, well: bool) -> str:
    """Return what the program said last; where it failed, first what it said on stderr, then the other.

    A failing program names its error on either, and goes on with progress or warnings on the other.
    """
    out, err = _last_line(ended.stdout, mask), _last_line(ended.stderr, mask)
    if well or not (out and err):
        return out or err
    return f"{err}; on stdout: {out}"


def _last_line(stream: bytes, mask: Mask) -> str:
    """Return a stream's last line. Masked before it is cut: half a secret would be none to the mask."""
    text = mask.raw(stream, cut=len(stream) >= TAIL).decode("utf-8", "replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:_SHOWN] if lines else ""


def _record(ctx: StepContext, stop: Stop) -> int:
    """Record every file the program left in {work}; make them durable."""
    count = 0
    buffer = files.hash_buffer()
    for found in files.walk(ctx.work):
        stop.check()
        if found.is_empty_dir:
            continue
        if found.kind != "file":
            raise ItemError(
                f"the program left a {found.kind} in its work directory", where=os.fsdecode(found.path)
            )
        fd, _ = files.open_regular(found.name, found.dir_fd)
        try:
            digest, size = files.sha256_fd(fd, buffer, lambda size: stop.check())
        finally:
            os.close(fd)
        ctx.output(Output(path=found.path, size=size, sha256=digest))
        count += 1
    if count:
        files.sync_filesystem(ctx.work)
    return count
