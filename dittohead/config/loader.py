"""config.yaml to frozen settings; every error with file, line, column and a suggestion, all at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from dittohead.config import notice_rules, notice_templates
from dittohead.config import registry as registry_module
from dittohead.config.notice_templates import Wording
from dittohead.config.positions import Document, Place, read
from dittohead.config.registry import Registry, Sources
from dittohead.config.salvage import Every, Salvaged, salvage
from dittohead.config.settings import Addresses, PipelineSettings, Settings
from dittohead.contract import placeholders
from dittohead.contract.board import OWN_FIELDS
from dittohead.contract.source import Source, SourceOptions
from dittohead.contract.worker import Options, Worker
from dittohead.folders import names, sent_manifest, sidecar
from dittohead.folders.sent_manifest import CONTROL
from dittohead.model import step_graph
from dittohead.model.definition import JobDefinition, StepDefinition
from dittohead.model.errors import ConfigError, DittoheadError, ItemError
from dittohead.model.text import display, is_utf8
from dittohead.system.patterns import Pattern

#: Jobs at once when `limits: {jobs:}` says nothing.
DEFAULT_JOBS = 8

#: The keys that are the engine's own: beside the worker's, or among its options.
_COMMON = ("name", "from", "after", "for")

_WRONG = "the configuration has errors"

_ONE_OF_THEM = "Correct the example, or match"

#: Names of files end like this.
_ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tif", ".pdf", ".jpg", ".xml", ".wav", ".mp4", ".csv")

_STEP_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_KEEP_WORK_S = 7 * 86400.0


@dataclass(frozen=True, kw_only=True)
class Step:
    """A worker with its options, inside a pipeline."""

    name: str
    worker: str
    source: str  #: name of the earlier step whose output it takes; "" for the payload
    needs: tuple[str, ...]  #: names of the earlier steps that must be done before it
    purpose: str  #: what it is for, which folders can ask for; "" for every folder
    options: dict[str, Any]  #: as written, with placeholders

    @property
    def definition(self) -> StepDefinition:
        """It as a job keeps it."""
        return StepDefinition(
            name=self.name,
            worker=self.worker,
            source=self.source,
            needs=self.needs,
            purpose=self.purpose,
            options=self.options,
        )


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A named, ordered list of steps, chosen for an arrival by its match."""

    name: str
    match: Pattern
    steps: tuple[Step, ...]
    settings: PipelineSettings
    space_factor: float  #: bytes needed under the root for each byte of the folder
    keep_work_s: float | None  #: None: forever

    @property
    def keep_done_s(self) -> float | None:
        """How long a folder stays in done/; None: forever."""
        keep = self.settings.keep_done
        return None if keep == "forever" else keep

    @property
    def takes(self) -> str:
        """Which folders it takes, for people: `scans (scanned pages), such as lab1-scans-07`."""
        told = [self.settings.description] if self.settings.description else []
        if not self.settings.example:  # else the example says it better
            told.append(f"match: {self.match.pattern}")
        example = f", such as {self.settings.example}" if self.settings.example else ""
        return f"{self.name}{' (' + '; '.join(told) + ')' if told else ''}{example}"

    @property
    def purposes(self) -> frozenset[str]:
        """What folders can ask for."""
        return frozenset(step.purpose for step in self.steps) - {""}

    def definition(self, purposes: Collection[str] = ()) -> JobDefinition:
        """Return what is copied into a job at its claim.

        Args:
            purposes: what its folder asks for; empty: everything.
        """
        unseen = [sent_manifest.PATTERN, *([sidecar.NAME] if self.purposes else [])]
        return JobDefinition(
            steps=step_graph.chosen([step.definition for step in self.steps], purposes),
            purposes=tuple(sorted(purposes)),
            skips_links=self.settings.links == "skip",
            ignore=(*self.settings.ignore, *unseen),
            keep_work_s=self.keep_work_s,
        )


@dataclass(frozen=True, kw_only=True)
class SourceSetting:
    """A source with its options."""

    name: str
    kind: str  #: the source's key in config.yaml
    options: SourceOptions


@dataclass(frozen=True, kw_only=True)
class Config:
    """The configuration, checked."""

    path: Path
    root: Path
    settings: Settings
    pipelines: tuple[Pipeline, ...]
    sources: tuple[SourceSetting, ...]
    limits: dict[str, int]  #: "jobs" and every worker's name
    digest: str = ""  #: of the file it was read from
    wording: Wording = field(default_factory=Wording)  #: of notices
    addresses: Mapping[str, str] = field(default_factory=dict)  #: of uploaders, by user name or number
    #: what `check` refuses and a start bears with: it harms single folders only
    doubts: tuple[DittoheadError, ...] = ()

    def source(self, name: str) -> SourceSetting | None:
        """Return the source of a name, None where there is none."""
        return next((setting for setting in self.sources if setting.name == name), None)

    @property
    def fields(self) -> dict[str, str]:
        """What the fields of tokens stand for in a folder that none was written for."""
        return {name: value for one in self.sources for name, value in one.options.fields.items()}

    def pipeline_for(self, name: str) -> tuple[Pipeline, dict[str, str]] | None:
        """Return the first pipeline whose match fits the whole name, and the match's groups.

        Raises: TooSlow: an ItemError; which pipeline it is for cannot be known.
        """
        for pipeline in self.pipelines:
            found = pipeline.match.fullmatch(name)
            if found is not None:
                return pipeline, found
        return None

    def takes_file(self, name: bytes) -> bool:
        """Tell whether a file of this name in the inbox becomes a folder by itself."""
        if not any(pipeline.settings.files for pipeline in self.pipelines) or not is_utf8(name):
            return False
        try:
            matched = self.pipeline_for(display(name))
        except ItemError:  # which pipeline it is for cannot be known
            return False
        return matched is not None and matched[0].settings.files is not None and name not in CONTROL

    def no_pipeline(self, name: str, do: str, then: str = "") -> ItemError:
        """Return the refusal of a folder whose name no pipeline's match fits.

        Args:
            do: how it gets another name, such as "Rename it".
            then: what follows; "" for nothing.
        """
        known = "; ".join(pipeline.takes for pipeline in self.pipelines)
        return ItemError(
            "no pipeline's match fits the folder's name",
            where=name,
            hint=f"{do} to fit one of: {known}{'. ' + then if then else ''}",
        )


def load(
    path: Path,
    registry: Registry | None = None,
    *,
    probe: bool = True,
    also: Callable[[Document], Iterable[DittoheadError]] = lambda document: (),
) -> Config:
    """Read and check config.yaml.

    Args:
        probe: also ask each worker whether this host can do it, which may start
            programs; commands that only read leave it out.
        also: finds further problems, which are told with the others.

    Raises: ConfigError: with every problem found, each naming line and key.
    """
    workers = registry or registry_module.default()
    document = read(path)
    if not isinstance(document.data, dict):
        raise ConfigError(
            "the configuration is empty or no mapping", where=str(path), hint="See: dittohead init"
        )
    found: list[DittoheadError] = []
    try:
        whole = Salvaged(Settings.model_validate(document.data))
    except ValidationError as error:
        found += _problems(error, document, (), Settings)
        kept = salvage(document.data, error)
        if kept is None:
            raise ConfigError(_WRONG, problems=_in_order((*found, *also(document)))) from error
        whole = kept
    checker = _Checker(document, whole, workers, probe=probe)
    checker.found += found
    return checker.config(also(document))


class _Checker:
    """Checks what one model alone cannot: steps, placeholders, references, limits."""

    def __init__(self, document: Document, kept: Salvaged, workers: Registry, *, probe: bool) -> None:
        self.document, self.settings, self.workers = document, kept.settings, workers
        self.kept, self.probe = kept, probe
        self.found: list[DittoheadError] = []
        self.doubts: list[DittoheadError] = []
        self.patterns: dict[str, Pattern] = {}  #: of pipelines, as far as they are known, in their order

    def config(self, more: Iterable[DittoheadError]) -> Config:
        """Check all of it. Raises: ConfigError: with these problems, and those found."""
        pipelines = [
            pipeline
            for name, given in self.settings.pipelines.items()
            if (pipeline := self.pipeline(name, given)) is not None
        ]
        self._check_examples()
        sources = [
            found
            for name, raw in self.settings.sources.items()
            if (found := _source(self, registry_module.sources(), name, raw)) is not None
        ]
        limits = self.limits()
        addresses, words = _addresses(self), _wording(self)
        given = self.document.data.get("pipelines")
        names = list(given) if isinstance(given, dict) else []
        for place, problem in notice_rules.check_rules(self.settings.notify, names, addresses):
            self.wrong(problem, ("notify", *place))
        http = self.settings.http if "http" not in self.kept.sections else None
        for key, problem, hint in http.problems() if http else ():
            self.wrong(problem, ("http", key), key=True, hint=hint)
        self.found += more
        if self.found:
            raise ConfigError(_WRONG, problems=_in_order((*self.found, *self.doubts)))
        return Config(
            path=self.document.path,
            root=(self.document.path.resolve().parent / self.settings.root).absolute(),
            settings=self.settings,
            pipelines=tuple(pipelines),
            sources=tuple(sources),
            limits=limits,
            digest=self.document.digest,
            wording=words,
            addresses=addresses,
            doubts=tuple(self.doubts),
        )

    def beside(self, path: Path) -> Path:
        """Return a path that is relative to the configuration's."""
        return self.document.path.resolve().parent / path

    def wrong(self, what: str, place: Place, *, key: bool = False, hint: str = "") -> None:
        self.found.append(ConfigError(what, where=self.document.where(place, key=key), hint=hint))

    def limits(self) -> dict[str, int]:
        known = {"jobs": DEFAULT_JOBS}
        for name in self.workers.names():
            if name in self.settings.limits or self._used(name):
                try:
                    known[name] = self.workers.get(name).default_limit
                except ConfigError as error:
                    self.found.append(error)
        for name in self.settings.limits:
            if name not in known:
                hint = suggest(name, ["jobs", *self.workers.names()])
                self.wrong(f'there is no kind of step "{name}"', ("limits", name), key=True, hint=hint)
        return known | self.settings.limits

    def _used(self, worker: str) -> bool:
        return any(worker in step for given in self.settings.pipelines.values() for step in given.steps)

    def pipeline(self, name: str, given: PipelineSettings) -> Pipeline | None:
        pattern = Pattern(given.match)
        if self.probe and (name_for_ever := pattern.slow_name()) is not None:
            what = f'"match" takes too long over some names, such as "{name_for_ever}"'
            where = self.document.where(("pipelines", name, "match"))
            hint = "Write it without repeats inside repeats, or parts of one that fit the same text"
            self.doubts.append(ConfigError(what, where=where, hint=hint))
        place: Place = ("pipelines", name)
        built_in = placeholders.BUILT_IN | ({"batch"} if given.each else set())
        fields = self._token_fields()
        for group in sorted(fields & pattern.groups):
            self.wrong(
                f'the group name "{group}" is taken: a source has a field of this name',
                (*place, "match"),
                hint="Call the group or the field something else",
            )
        clash = built_in & pattern.groups
        for group in sorted(clash):
            self.wrong(
                f'the group name "{group}" is taken: {{{group}}} has a meaning of its own',
                (*place, "match"),
                hint="Call the group something else",
            )
        if given.keep_done != "forever" and not self._delivers(given):
            what = "no step delivers anything, so a folder that is removed from done/ would be lost"
            self.wrong(what, (*place, "keep_done"), hint="Add a step that delivers, or leave keep_done out")
        self._check_files(given, place)
        unmatched = name in self.kept.unmatched
        if not unmatched:
            self.patterns[name] = pattern
        known = Every() if unmatched else built_in | pattern.groups | fields
        steps: list[Step] = []
        places: dict[str, Place] = {}
        before = len(self.found)
        for index, raw in enumerate(given.steps):
            step = self.step(raw, (*place, "steps", index), known, steps)
            if step is not None:
                steps.append(step)
                places[step.name] = (*place, "steps", index, step.worker)
        self._check_knows(steps, places)
        self._check_purposes(steps, places, known, place)
        if unmatched or len(self.found) > before:
            return None
        return Pipeline(
            name=name,
            match=pattern,
            steps=tuple(steps),
            settings=given,
            space_factor=self._factor(given, steps),
            keep_work_s=self._keep(given, steps),
        )

    def _check_files(self, given: PipelineSettings, place: Place) -> None:
        """See that what a pipeline of files asks for can be found in a folder of one."""
        if given.files and given.each:
            what = "a file holds no folders, and each: makes a job of each folder"
            self.wrong(what, (*place, "files"), key=True, hint="Take one of the two out")
        if given.files and given.complete:
            what = "a file brings no list along by which it could be seen to be complete"
            self.wrong(what, (*place, "complete"), key=True, hint="Make a pipeline of its own for files")

    def _token_fields(self) -> frozenset[str]:
        """Return the fields of tokens of all sources, which may stand in options as well."""
        given = (options for raw in self.settings.sources.values() for options in raw.values())
        fields = (options.get("fields") for options in given if isinstance(options, dict))
        return frozenset(str(name) for one in fields if isinstance(one, dict) for name in one)

    def _check_examples(self) -> None:
        """See that a folder of each example's name would go through the pipeline that gives it."""
        for name in self.patterns:
            example, place = self.settings.pipelines[name].example, ("pipelines", name, "example")
            if not example:
                continue
            try:
                names.checked(example)
                takers = [
                    other for other, match in self.patterns.items() if match.fullmatch(example) is not None
                ]
            except ItemError as error:
                self.wrong(error.what, place, hint=error.hint)
                continue
            if name not in takers:
                self.wrong(f'the example "{example}" does not fit match', place, hint=_ONE_OF_THEM)
            elif takers[0] != name:
                what = f'the example "{example}" goes through {takers[0]}, which is tried before'
                self.wrong(what, place, hint=_ONE_OF_THEM)
            elif self.settings.pipelines[name].files and "." not in example:
                self._check_file_names(name, example)

    def _check_file_names(self, name: str, example: str) -> None:
        """See that files, which have endings, can go through a pipeline that is to take them."""
        place: Place = ("pipelines", name, "match")
        what = f'match fits no name of a file, such as "{example}.zip": files have endings'
        hint = "Let match end in .*, or name the ending in it"
        for file in (example + ending for ending in _ENDINGS):
            try:
                takers = [
                    other for other, match in self.patterns.items() if match.fullmatch(file) is not None
                ]
            except ItemError:  # said of the pattern itself
                return
            if name in takers and (takers[0] == name or self.settings.pipelines[takers[0]].files):
                return
            if name in takers:
                what = f'a file "{file}" goes through {takers[0]}, which is tried before and takes no files'
                hint = "Change the order, or one of the matches"
                break
        self.doubts.append(ConfigError(what, where=self.document.where(place), hint=hint))

    def _delivers(self, given: PipelineSettings) -> bool:
        """Tell whether a pipeline has a step that brings something to a place outside."""
        for kind in (key for raw in given.steps for key in raw if key not in _COMMON):
            try:
                if self.workers.get(kind).delivers:
                    return True
            except LookupError:  # said where the step is read
                return True
        return False

    def _factor(self, given: PipelineSettings, steps: list[Step]) -> float:
        if given.space_factor is not None:
            return given.space_factor
        return sum(self.workers.get(step.worker).space_factor for step in steps)

    def _keep(self, given: PipelineSettings, steps: list[Step]) -> float | None:
        if given.keep_work == "forever":
            return None
        if given.keep_work is not None:
            return given.keep_work
        taken = {step.source for step in steps}
        made = [step.name for step in steps if self.workers.get(step.worker).makes_outputs]
        return _KEEP_WORK_S if all(name in taken for name in made) else None

    def step(
        self, raw: dict[str, Any], place: Place, known: frozenset[str], earlier: list[Step]
    ) -> Step | None:
        kinds = [key for key in raw if key not in _COMMON]
        if len(kinds) != 1:
            self.wrong(
                "a step is one key, the worker's name, with its options"
                + (f"; here stand {', '.join(kinds)}" if kinds else ""),
                place,
                hint="Begin each step with a dash of its own",
            )
            return None
        kind = kinds[0]
        if kind not in self.workers.names():
            hint = suggest(kind, self.workers.names())
            self.wrong(f'there is no worker "{kind}"', (*place, kind), key=True, hint=hint)
            return None
        try:
            worker = self.workers.get(kind)
        except ConfigError as error:
            self.found.append(error)
            return None
        return self._step_of(worker, raw, (*place, kind), known, earlier)

    def _step_of(
        self,
        worker: Worker[Any],
        raw: dict[str, Any],
        place: Place,
        known: frozenset[str],
        earlier: list[Step],
    ) -> Step | None:
        before = len(self.found)
        given = raw[worker.name]
        given = {} if given is None else given
        if not isinstance(given, dict):
            self.wrong("options are a mapping, such as {key: value}", place)
            return None
        options = dict(given)
        # These keys are the engine's; they may stand beside the worker's key or among its options.
        name, source, after, purpose = (self._common(key, raw, options, worker) for key in _COMMON)
        name, source = name or worker.name, source or ""
        self._check_name(str(name), place, earlier)
        self._check_source(str(source), place, earlier)
        self._check_purpose(purpose, place)
        needs = self._needs(worker, after, str(source), options, place, earlier)
        for key, value in options.items():
            self._check_placeholders(value, (*place, key), self._known(key, worker, place, known))
        checked = self._check_options(worker, options, place)
        for inner, what, hint in worker.mistakes(checked) if checked is not None else ():
            self.wrong(what, (*place, *inner), hint=hint)
        if self.probe and checked is not None and len(self.found) == before:
            for problem in worker.check(checked):
                self.wrong(problem, place, key=True)
        # Returned also when it is wrong: later steps may name it, and are not wrong for that.
        return Step(
            name=str(name),
            worker=worker.name,
            source=str(source),
            needs=needs,
            purpose=str(purpose or ""),
            options=options,
        )

    def _common(self, key: str, raw: dict[str, Any], options: dict[str, Any], worker: Worker[Any]) -> Any:
        beside = raw.get(key)
        if key in options and key not in worker.Options.model_fields:
            return options.pop(key)
        return beside

    def _check_name(self, name: str, place: Place, earlier: list[Step]) -> None:
        if not _STEP_NAME.fullmatch(name):
            self.wrong(
                f'"{name}" is not a name for a step',
                (*place, "name"),
                hint="Use letters, digits, - and _, beginning with a letter",
            )
        elif name in {step.name for step in earlier}:
            self.wrong(
                f'an earlier step is called "{name}" too',
                place,
                key=True,
                hint=f"Tell them apart: {{name: {name}-2, ...}}",
            )

    def _check_source(self, source: str, place: Place, earlier: list[Step]) -> None:
        if not source:
            return
        names = [step.name for step in earlier]
        here = (*place, "from")
        if source not in names:
            hint = suggest(source, names) or "Only a step that comes before can be named"
            self.wrong(f'there is no earlier step "{source}"', here, hint=hint)
        elif not self.workers.get(earlier[names.index(source)].worker).makes_outputs:
            self.wrong(f'the step "{source}" makes nothing that could be taken', here)

    def _check_purpose(self, purpose: Any, place: Place) -> None:
        if purpose is not None and not (isinstance(purpose, str) and _STEP_NAME.fullmatch(purpose)):
            self.wrong("one word is required, such as preservation or access", (*place, "for"))

    def _needs(
        self,
        worker: Worker[Any],
        after: Any,
        source: str,
        options: dict[str, Any],
        place: Place,
        earlier: list[Step],
    ) -> tuple[str, ...]:
        """Return the steps that must be done before this one, in their order."""
        names = [step.name for step in earlier]
        taken = {source} - {""}
        for key in sorted(worker.takes):
            taken.update(self._steps_named(options.get(key), (*place, key), names))
        if after is None:
            return tuple(names)
        if not isinstance(after, (str, list)):
            self.wrong("names of earlier steps are required, such as [convert]", (*place, "after"))
            return tuple(names)
        wanted = taken | set(self._steps_named(after, (*place, "after"), names))
        return tuple(name for name in names if name in wanted)

    def _steps_named(self, given: Any, place: Place, names: list[str]) -> list[str]:
        """Return the names in an option that names earlier steps, one or a list."""
        found = [given] if isinstance(given, str) and given else given if isinstance(given, list) else []
        for index, name in enumerate(found):
            if name not in names:
                hint = suggest(str(name), names) or "Only a step that comes before can be named"
                here = (*place, index) if isinstance(given, list) else place
                self.wrong(f'there is no earlier step "{name}"', here, hint=hint)
        return [str(name) for name in found]

    def _check_purposes(
        self, steps: Sequence[Step], places: Mapping[str, Place], groups: frozenset[str], place: Place
    ) -> None:
        """Find a purpose that is mistyped: its step would be left out, and nobody told."""
        words = [step.purpose for step in steps if step.purpose]
        for step in steps:
            others = [word for word in dict.fromkeys(words) if word != step.purpose]
            near = difflib.get_close_matches(step.purpose, others, n=1, cutoff=0.8) if step.purpose else []
            if near and words.count(step.purpose) <= words.count(near[0]):
                what = f'"{step.purpose}" is nearly "{near[0]}", which another step is for'
                self.wrong(what, (*places[step.name], "for"), hint="Write one word for one purpose")
        near = difflib.get_close_matches("purpose", groups - {"purpose"}, n=1, cutoff=0.7)
        if words and near and "purpose" not in groups:
            what = f'the group is called "{near[0]}", and steps have for:'
            self.wrong(what, (*place, "match"), hint='Did you mean "purpose"?')

    def _check_knows(self, steps: Sequence[Step], places: Mapping[str, Place]) -> None:
        """Check the options that name a step which finds out what is known of the objects."""
        describing = [step.name for step in steps if self.workers.get(step.worker).describes]
        for step in steps:
            for key in sorted(self.workers.get(step.worker).knows & step.options.keys()):
                named = step.options[key]
                if named and named not in describing:
                    hint = suggest(str(named), describing) or f"There are {', '.join(describing) or 'none'}"
                    what = f'"{named}" is not a step that finds out what is known of the folder\'s objects'
                    self.wrong(what, (*places[step.name], key), hint=hint)

    def _known(self, key: str, worker: Worker[Any], place: Place, known: frozenset[str]) -> frozenset[str]:
        """Return the placeholders that an option may use: more, where it is a template for each file."""
        if key not in worker.per_file:
            return known
        for group in sorted(placeholders.FILE & known):
            self.wrong(
                f"{{{group}}} stands for a part of each file's path here, and a group of match is called "
                f'"{group}" too',
                (*place, key),
                hint="Call the group something else",
            )
        return known | placeholders.FILE | worker.file_values

    def _check_placeholders(self, value: Any, place: Place, known: frozenset[str]) -> None:
        if isinstance(value, str):
            for problem, name in placeholders.problems(value, known):
                hint = suggest(name, known) or (f"There are {', '.join(sorted(known))}" if name else "")
                self.wrong(problem, place, hint=hint)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                self._check_placeholders(item, (*place, index), known)
        elif isinstance(value, dict):
            for key, item in value.items():
                self._check_placeholders(item, (*place, key), known)

    def _check_options(self, worker: Worker[Any], options: dict[str, Any], place: Place) -> Options | None:
        try:
            return worker.Options.model_validate(options)
        except ValidationError as error:
            self.found.extend(_problems(error, self.document, place, worker.Options))
            return None


def _source(checker: _Checker, known: Sources, name: str, raw: dict[str, Any]) -> SourceSetting | None:
    """Check one entry of sources:."""
    place: Place = ("sources", name)
    if not _STEP_NAME.fullmatch(name):
        hint = "Use letters, digits, - and _, beginning with a letter"
        checker.wrong(f'"{name}" is not a name for a source', place, key=True, hint=hint)
        return None
    if len(raw) != 1:
        hint = f"There are {', '.join(known.names())}"
        checker.wrong("a source is one key, its kind, with its options", place, key=True, hint=hint)
        return None
    ((kind, given),) = raw.items()
    if kind not in known.names():
        hint = suggest(kind, known.names()) or f"There are {', '.join(known.names())}"
        checker.wrong(f'there is no kind of source "{kind}"', (*place, kind), key=True, hint=hint)
        return None
    try:
        source = known.get(kind)
        options = source.Options.model_validate({} if given is None else given)
    except ConfigError as error:
        checker.found.append(error)
        return None
    except ValidationError as error:
        kind_of = known.get(kind).Options
        checker.found.extend(_problems(error, checker.document, (*place, kind), kind_of))
        return None
    for problem in source.check(options) if checker.probe else ():
        checker.wrong(problem, (*place, kind), key=True)
    _check_fields(checker, source, options, (*place, kind))
    return SourceSetting(name=name, kind=kind, options=options)


def _check_fields(checker: _Checker, source: Source[Any], options: SourceOptions, place: Place) -> None:
    """See that fields of tokens mean nothing else, and that there are tokens."""
    if options.fields and source.board is None:
        checker.wrong("this kind of source has no board, and so no tokens", (*place, "fields"), key=True)
        return
    taken = placeholders.BUILT_IN | {"batch"} | placeholders.FILE | placeholders.FILE_MORE | OWN_FIELDS
    for name in options.fields:
        if name in taken or (source.board is not None and name == source.board.key):
            hint = "Call the field something else"
            checker.wrong(f'"{name}" has a meaning of its own', (*place, "fields", name), key=True, hint=hint)


def _addresses(checker: _Checker) -> dict[str, str]:
    """Return the addresses of uploaders: those of the file, and those written here."""
    here, path = checker.settings.uploaders, checker.settings.uploaders_file
    if path is None:
        return dict(here)
    try:
        document = read(checker.beside(path))
    except ConfigError as error:
        checker.found.append(ConfigError(error.what, where=error.where, hint="It is named by uploaders_file"))
        return dict(here)
    try:
        given = Addresses.model_validate({} if document.data is None else document.data)
    except ValidationError as error:
        checker.found.extend(_problems(error, document, (), Addresses))
        return dict(here)
    return given.root | here


def _wording(checker: _Checker) -> Wording:
    """Return the words of notices, with the templates of the site."""
    if checker.settings.templates is None:
        return Wording()
    found, wrong = notice_templates.read(checker.beside(checker.settings.templates))
    for where, problem in wrong:
        checker.found.append(ConfigError(problem, where=where))
    return found


def _in_order(problems: Iterable[DittoheadError]) -> tuple[DittoheadError, ...]:
    """Return problems in the order of the file."""

    def position(problem: DittoheadError) -> tuple[str, int, int]:
        found = re.fullmatch(r"(.*?)(?::(\d+))?(?::(\d+))?", problem.where, re.DOTALL)
        path, line, column = found.groups() if found is not None else ("", 0, 0)
        return path, int(line or 0), int(column or 0)

    return tuple(sorted(problems, key=position))


def suggest(word: str, known: Iterable[str]) -> str:
    """Return 'Did you mean "..."?' for the nearest known word, or ""."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f'Did you mean "{close[0]}"?' if close else ""


def _problems(
    error: ValidationError, document: Document, place: Place, model: type[BaseModel]
) -> Iterator[DittoheadError]:
    """Turn pydantic's findings into ours, each with its line; values are never shown."""
    seen = set()
    for finding in error.errors(include_url=False):
        location: Place = (*place, *finding["loc"])
        key = next((part for part in reversed(finding["loc"]) if isinstance(part, str)), "")
        owner = _model_at(model, finding["loc"][:-1])
        phrase = _PHRASES.get(finding["type"], _plain_phrase)(finding, key, owner)
        where = document.where(location, key=finding["type"] == "extra_forbidden")
        if (where, phrase) not in seen:
            seen.add((where, phrase))
            yield ConfigError(phrase[0], where=where, hint=phrase[1])


def _unknown(finding: Any, key: str, owner: type[BaseModel] | None) -> tuple[str, str]:
    known = [] if owner is None else [f.alias or name for name, f in owner.model_fields.items()]
    hint = suggest(key, known) or (f"There are {', '.join(known)}" if known else "")
    return f'unknown key "{key}"', hint


def _missing(finding: Any, key: str, owner: type[BaseModel] | None) -> tuple[str, str]:
    described = "" if owner is None or key not in owner.model_fields else owner.model_fields[key].description
    return f'the key "{key}" is missing', described or ""


def _choice(finding: Any, key: str, owner: type[BaseModel] | None) -> tuple[str, str]:
    known = re.findall(r"'([^']*)'", finding["ctx"]["expected"])
    given = finding["input"] if isinstance(finding["input"], str) else ""
    return f'"{key}": write one of {", ".join(known)}', suggest(given, known)


def _too_short(finding: Any, key: str, owner: type[BaseModel] | None) -> tuple[str, str]:
    least = finding["ctx"].get("min_length", 1)
    return f'"{key}": ' + ("it is empty" if least == 1 else f"at least {least} are required"), ""


def _needs(what: str) -> Callable[[Any, str, type[BaseModel] | None], tuple[str, str]]:
    """Return the phrase for a value of another kind."""
    return lambda finding, key, owner: (f'"{key}": {what} is required' if key else f"{what} is required", "")


def _plain_phrase(finding: Any, key: str, owner: type[BaseModel] | None) -> tuple[str, str]:
    message = finding["msg"].removeprefix("Value error, ")
    return (f'"{key}": {message[:1].lower()}{message[1:]}' if key else message), ""


_PHRASES: dict[str, Callable[[Any, str, type[BaseModel] | None], tuple[str, str]]] = {
    "extra_forbidden": _unknown,
    "missing": _missing,
    "literal_error": _choice,
    **dict.fromkeys(("too_short", "string_too_short"), _too_short),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), _needs("a whole number")),
    **dict.fromkeys(("float_type", "float_parsing"), _needs("a number")),
    **dict.fromkeys(("bool_type", "bool_parsing"), _needs("true or false")),
    "string_type": _needs("text (a number in quotes)"),
    "list_type": _needs("a list, such as [a, b],"),
    **dict.fromkeys(("dict_type", "model_type"), _needs("a mapping, such as {key: value},")),
}


def _model_at(model: type[BaseModel], location: tuple[str | int, ...]) -> type[BaseModel] | None:
    """Return the model that stands at a location inside another, None where that is unclear."""
    here: type[BaseModel] | None = model
    for part in location:
        if here is None or not isinstance(part, str):
            continue
        found = here.model_fields.get(part)
        if found is None:
            continue
        here = next((kind for kind in _kinds(found.annotation) if issubclass(kind, BaseModel)), None)
    return here


def _kinds(annotation: Any) -> Iterator[type]:
    if isinstance(annotation, type):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _kinds(inner)
