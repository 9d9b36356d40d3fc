"""The contract between the engine and everything that does domain work; no implementation."""

from __future__ import annotations

import abc
import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from dittohead.model.description import Described
from dittohead.model.events import Event
from dittohead.model.records import Entry, Location, Output
from dittohead.system.pace import Pace


class Options(BaseModel):
    """What a step's options in config.yaml may be; a worker subclasses it.

    Every text may hold placeholders (`{name}`, `{id}`, `{date}`, the match's groups), which the
    engine fills in before the worker sees them. The description of each field is the reference page.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)


OptionsT = TypeVar("OptionsT", bound=Options)


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The files a step takes: the payload, or what an earlier step made."""

    root: Path  #: absolute directory the entries are relative to
    entries: Callable[[], Iterator[Entry]]  #: reads them from disk again at each call; never all in memory
    files: int  #: how many there are
    size: int  #: bytes of all files
    made: Made | None = None  #: the step that made them, with its outputs' details; None for the payload
    released: bool = False  #: they were let go with `StepContext.release`; `Remake` brings them back


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What decides what a step makes of a file; of equal ones the results are equal."""

    settings: Mapping[str, Any]  #: JSON values by name, such as {"quality": 85}
    tools: Mapping[str, str]  #: versions of what does the work, such as {"libvips": "8.14.1"}

    def as_dict(self) -> dict[str, Any]:
        """Return it as the store and receipts keep it."""
        return {"settings": dict(self.settings), "tools": dict(self.tools)}


@dataclass(frozen=True, kw_only=True)
class Made:
    """What another step of the same job has made and delivered."""

    name: str
    worker: str
    source: str  #: the step it took its files from; "" for the payload
    root: Path  #: directory its outputs are relative to
    outputs: Callable[[], Iterator[Output]]  #: read again at each call
    locations: Callable[[], Iterator[Location]]


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One thing a step would do, for `dittohead plan`."""

    action: Literal["make", "send", "create", "change", "keep", "leave", "run"]
    what: str  #: a file's path, a record, a program with its arguments
    where: str = ""  #: a key, a URI, the call: "POST /repositories/2/digital_objects"
    detail: str = ""  #: such as "12 MB" or "1 of 5 requests"


@dataclass(frozen=True, kw_only=True)
class Done:
    """The step is complete; everything it promised is durable and verified."""

    detail: str = ""  #: one line for people, such as "16 images, 41 MB"


@dataclass(frozen=True, kw_only=True)
class Wait:
    """The step needs an outside answer; `run` is called again after `seconds`, or when poked.

    What the worker needs then it must have put in `state`.
    """

    reason: str  #: what is waited for, shown to people
    seconds: float  #: until `run` is called again
    state: dict[str, Any] = field(default_factory=dict)  #: JSON, in `StepContext.saved` at the next try


@dataclass(frozen=True, kw_only=True)
class Freeze:
    """A person has to decide: the job is frozen. When it is thawed, `run` is called again.

    That it was thawed is the decision: `state` must say what the job was frozen for, so that it goes on then.
    """

    reason: str  #: what is to be decided, shown to people wherever the job is shown
    state: dict[str, Any] = field(default_factory=dict)  #: JSON, in `StepContext.saved` when it was thawed


@dataclass(frozen=True, kw_only=True)
class Remake:
    """The step needs the files of `source`, which it has let go with `StepContext.release`.

    The step that made them is done again; then `run` is called again. Of a worker that is reproducible they
    are the same, to the byte; what has happened to the job since may make them others.
    """

    state: dict[str, Any] = field(default_factory=dict)  #: JSON, in `StepContext.saved` at the next try


StepResult = Done | Wait | Freeze | Remake


class StepContext(abc.ABC):
    """What a running step may know and do. One per try; only for the loop's thread."""

    job_id: str  #: the job's id
    name: str  #: the folder's original name
    batch: str  #: the name of the collection it lies in; "" where it was dropped by itself
    pipeline: str  #: the pipeline's name
    step: str  #: this step's name
    payload: Path  #: processing/NAME: to be read, never written
    work: Path  #: work/<job id>/<step>/: this step's own, exists, may hold an earlier try's remains
    source: Inputs  #: the files it takes: those of `from`, otherwise the payload
    earlier: Sequence[Path]  #: work directories of this step in earlier jobs of the name, the latest first
    attempt: int  #: 1 for the first try
    claimed_at: float  #: when the folder was claimed, seconds since the epoch
    originals: Inputs  #: the payload, whatever `source` is
    outside: Path  #: a file for notes of what is begun outside and unfinished; see `Worker.let_go`
    ledger: Path  #: a file for notes of what is created outside, before it is; kept for `Worker.undo`
    written: Mapping[str, Any] = MappingProxyType({})  #: its options as config.yaml has them
    saved: Mapping[str, Any]  #: what `save` or the state of a result kept, {} at first
    dry_run: bool = False  #: for `plan`: not even `preflight` may change anything outside
    log: Any  #: structlog logger, bound to job, name and step
    env: Mapping[str, str]  #: the environment for child processes

    @abc.abstractmethod
    def made_by(self, step: str) -> Made | None:
        """Return what a step that is done has made; None when the folder was not to have that step.

        Only of steps that this one names in an option of `Worker.takes`, and of those that these, and
        the step that made `source`, go back to. In `preflight` of every step the folder is to have: they
        have made nothing yet.
        """

    @abc.abstractmethod
    def facts(self, step: str) -> Mapping[str, Any]:
        """Return what a step's `preflight` has found; {} when it has none. Blocking, but short."""

    @abc.abstractmethod
    def described(self, step: str = "") -> Described:
        """Return what is known of the folder's objects.

        Args:
            step: the one whose `preflight` has found it; "" for the pipeline's first that does. When
                there is none, the folder's name is all that is known.
        """

    async def came_before(self) -> bool:
        """Tell whether a job of this folder's name was over before this one."""
        return False

    async def history(self, *, earlier: bool = False) -> Sequence[Event]:
        """Return what is recorded of the job itself and of the steps before this one, in order.

        Only of steps that this one waits for: what others that run beside it record is not in it.

        Args:
            earlier: return instead what is recorded of all earlier jobs of the folder's name that have
                ended, and of all their steps, the earliest job first.
        """
        return ()

    async def release(self) -> None:
        """Tell that this step needs the files of `source` no more, also at a later try.

        Where a step of the same job made them, and no other step that is not done needs them, they are
        removed from work/. `Inputs.released` is true from then on; a step that needs them after all returns
        `Remake`. To be called when what was made of them outside is durable.
        """
        return

    @abc.abstractmethod
    async def save(self, state: dict[str, Any]) -> None:
        """Keep `state` durably for this step's next try, replacing what was kept before.

        Raises: Superseded.
        """

    @abc.abstractmethod
    async def fence(self) -> None:
        """Check that this run still owns the job; to be called right before publishing.

        Raises: Superseded.
        """

    @abc.abstractmethod
    def progress(self, done: int, total: int, unit: str) -> None:
        """Tell how far the step is; `unit` is "bytes" or a plural noun such as "images". Cheap.

        Args:
            done: how much is done since the step began, in `unit`.
            total: how much there is, in `unit`; 0 when that is not known.
            unit: what is counted.
        """

    @abc.abstractmethod
    def output(self, output: Output) -> None:
        """Record a file made in `work`. Recorded again at each try."""

    @abc.abstractmethod
    def location(self, location: Location) -> None:
        """Record a verified file outside. Recorded again at each try."""

    @abc.abstractmethod
    def event(self, event: Event) -> None:
        """Record a PREMIS event; committed with the step's result.

        Where the step ends in an ItemError, events whose outcome is "failure" are kept, and no others.
        """

    @abc.abstractmethod
    def full(self, target: str, used: float, capacity: int) -> None:
        """Report how full the file system of a target is: `used` from 0 to 1, `capacity` in bytes.

        Args:
            target: the target, as `Worker.target` names it.
            used: the part of it that is used, from 0 to 1.
            capacity: bytes that it holds when it is full.
        """

    @abc.abstractmethod
    def spare_slot(self) -> AbstractAsyncContextManager[None] | None:
        """Take one more slot of this step's kind if one is free now, for a further child process.

        Returns None when there is none. To be given back soon after `contended` turns true.
        """

    @property
    @abc.abstractmethod
    def contended(self) -> bool:
        """Whether another job waits for a slot of this kind."""

    @abc.abstractmethod
    def log_file(self) -> Path:
        """Return the file that holds what this step's programs print; appended to."""

    @abc.abstractmethod
    def secret(self, name: str) -> str:
        """Return a credential by its file name. Raises: ItemError when there is none."""


class Worker(abc.ABC, Generic[OptionsT]):
    """Code that can do one kind of step.

    One instance serves the whole process; it keeps no state of a job. `run` may be called again
    for the same step after a crash at any point, after a failure, after `Wait` and `Freeze`: it MUST leave
    the same result, MUST never change the payload, and on cancellation MUST leave no child
    process behind (`dittohead.run` sees to it). Raise ItemError, TransientError or TargetError;
    anything else is a defect of the worker and fails the job with a traceback in the log.

    A whole one:

        from dittohead import Done, ItemError, Options, Worker

        class CountOptions(Options):
            least: int = 1

        class CountWorker(Worker[CountOptions]):
            name = "count"
            Options = CountOptions

            async def run(self, ctx, options):
                if ctx.source.files < options.least:
                    raise ItemError("there are too few files", where=ctx.name, hint="Add the others")
                return Done(detail=f"{ctx.source.files} files")
    """

    name: ClassVar[str]  #: the key in config.yaml
    Options: ClassVar[type[Options]]  #: what its options may be
    makes_outputs: ClassVar[bool] = False  #: a later step may take from it (`from:`)
    space_factor: ClassVar[float] = 0.0  #: bytes it may write under work/, per byte of the folder
    default_limit: ClassVar[int] = 2  #: steps (or child processes) of this kind at once, per host
    per_file: ClassVar[frozenset[str]] = frozenset()  #: options that are templates for each file
    #: placeholders of such templates besides `templates.FILE`, of those in `templates.FILE_MORE`
    file_values: ClassVar[frozenset[str]] = frozenset()
    #: options that are URIs, those inside another as "see_also.id": what is filled in is percent-encoded
    uris: ClassVar[frozenset[str]] = frozenset()
    #: options that name earlier steps (one, or a list) whose results it reads; it runs after them
    takes: ClassVar[frozenset[str]] = frozenset()
    #: whether it brings something to a place outside: a folder of which nothing went out is not done
    delivers: ClassVar[bool] = False
    #: whether a file that is all it makes holds all that it was given, as an archive does
    packs: ClassVar[bool] = False
    #: whether `preflight` finds what is known of the objects: facts {"described": Described as JSON}
    describes: ClassVar[bool] = False
    #: options that name a step which describes
    knows: ClassVar[frozenset[str]] = frozenset()

    def check(self, options: OptionsT) -> list[str]:
        """Return what makes these options impossible on this host, each a statement with its cure.

        Called by `dittohead check` and at start, before placeholders are filled in; must not
        reach out to the network.
        """
        return []

    def stage(self, options: Mapping[str, Any]) -> str:
        """Return what a folder is called on a board after this step, such as "extracted"; "": like the step.

        Args:
            options: as config.yaml has them, with their placeholders.
        """
        return ""

    def mistakes(self, options: OptionsT) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
        """Yield what is wrong with these options on every host: (where in them, what, what to do).

        Called whenever config.yaml is read, before placeholders are filled in.
        """
        yield from ()

    def target(self, options: OptionsT) -> str:
        """Return the outside place this step writes to, which can be paused; "" for none."""
        return ""

    def room(self, options: OptionsT, written: Mapping[str, Any]) -> str:
        """Return the part of the target that may be full or over its quota alone, which is paused then.

        Args:
            written: the options as config.yaml has them, with their placeholders.
        """
        return ""

    async def doctor(
        self, options: OptionsT, secret: Callable[[str], str]
    ) -> AsyncIterator[tuple[bool, str]]:
        """Yield (ok, statement) for each thing worth checking outside, for `dittohead doctor`.

        Args:
            secret: gives a credential by its file name. Raises: ItemError: there is none.
        """
        for _ in ():
            yield True, ""

    async def examine(
        self, options: OptionsT, secret: Callable[[str], str], written: Mapping[str, Any]
    ) -> AsyncIterator[tuple[bool, str]]:
        """Yield what `doctor` does, for a worker that has to know which part of an option no folder fills in.

        Args:
            written: the options as config.yaml has them; in `options` words stand for its placeholders.
        """
        async for said in self.doctor(options, secret):
            yield said

    async def preflight(self, ctx: StepContext, options: OptionsT) -> Mapping[str, Any]:
        """Find out, before any step runs, whether this one can be done; return facts to be kept.

        Called for every step of a job, in order, after the manifest and before anything is written
        anywhere; facts are JSON values, kept with the job (see `StepContext.facts`). Not called again
        once it has returned. MUST change nothing outside. Earlier steps have made nothing yet.

        Raises: StepError: it cannot be done; an ItemError fails the folder before anything was written.
        """
        return {}

    async def plan(self, ctx: StepContext, options: OptionsT) -> AsyncIterator[Planned]:
        """Yield what `run` would do, for `dittohead plan`; change nothing, here or outside.

        `ctx` holds the facts of all steps, and as inputs what earlier steps said they would make: so
        tell `ctx.output` of each file that would be made and `ctx.location` of each that would be
        delivered, with sha256 "" and size 0 where they cannot be known.
        """
        yield Planned(action="run", what=self.name)

    def recipe(self, options: OptionsT) -> Recipe | None:
        """Return what decides what this step makes, so that a change of it is seen; None: it makes nothing.

        It is kept with the step's result: `dittohead rerun --changed` compares.
        """
        return None

    @abc.abstractmethod
    async def run(self, ctx: StepContext, options: OptionsT) -> StepResult:
        """Do the step. See the class for what it must promise."""

    async def let_go(self, notes: Path, secret: Callable[[str], str]) -> None:
        """Undo what a step left unfinished outside, when its job has ended without it.

        Called while the file of notes (`StepContext.outside`) exists, which MUST begin with a JSON
        line holding "worker" and "job"; it is removed when this returns. Raise StepError to be
        called again later.
        """

    async def undo(self, ctx: UndoContext, options: OptionsT) -> None:
        """Remove outside what this step of this job has created, where nobody has changed it since.

        For `dittohead undo JOB`, of an ended job. Report each thing with `ctx.report`; what was
        changed by others stays, and is reported. May be called again.

        Raises: StepError.
        """
        return

    async def verify(self, ctx: VerifyContext, options: OptionsT) -> None:
        """Check this step's recorded locations where they lie, for `dittohead verify`.

        Report each with `ctx.report`. A worker without locations need not do anything.
        """


@dataclass(frozen=True, kw_only=True)
class VerifyContext:
    """What `Worker.verify` may know."""

    locations: Callable[[], Iterator[Location]]
    source: Inputs | None  #: the files the step took, where they still lie on disk; None if gone
    env: Mapping[str, str]
    report: Callable[[bool, str, str], None]  #: (ok, uri, statement)
    secret: Callable[[str], str] = lambda name: ""  #: gives a credential by its file name
    stopped: asyncio.Event = field(default_factory=asyncio.Event)  #: set when nobody waits for it any more
    pace: Pace = field(default_factory=Pace)  #: is told what is read, and says when more may be
    reads: bool = False  #: also read what a place tells a checksum of by itself


@dataclass(frozen=True, kw_only=True)
class UndoContext:
    """What `Worker.undo` may know."""

    job_id: str
    ledger: Path  #: what `run` has noted (see `StepContext.ledger`); may not exist
    locations: Callable[[], Iterator[Location]]
    env: Mapping[str, str]
    secret: Callable[[str], str]  #: gives a credential by its file name
    dry_run: bool  #: only report what would be removed
    report: Callable[[bool, str, str], None]  #: (gone, or would be; uri; statement)
