"""What a package is to hold, as other steps have left it: files, formats, descriptions, events."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from dittohead.contract import placeholders
from dittohead.contract.worker import Made, StepContext
from dittohead.model import paths
from dittohead.model.description import Described
from dittohead.model.errors import ItemError
from dittohead.model.events import AGENT, Event, EventType
from dittohead.model.records import Entry
from dittohead.model.text import display
from dittohead.system.threads import Stop
from dittohead.toolkit.provenance import Owners, origins
from dittohead.toolkit.sip import descriptive
from dittohead.toolkit.sip.content import Agent, DescriptiveMetadata, Package, SipEvent, as_line, derived
from dittohead.toolkit.sip.profile import Profile
from dittohead.workers.package.options import PackageOptions


@dataclass(frozen=True, kw_only=True)
class GatheredContent:
    """What was gathered."""

    package: Package
    unmatched: list[str]  #: patterns of `metadata` that no file fits


class Gathering:
    """Writes a line for each file, and says the rest. Blocking; `run` it in a thread."""

    def __init__(
        self, ctx: StepContext, options: PackageOptions, profile: Profile, past: Sequence[Event], stop: Stop
    ) -> None:
        self._ctx, self._options, self._profile, self._stop = ctx, options, profile, stop
        self._past = past
        self._now = _moment(max([ctx.claimed_at, *(event.at.timestamp() for event in past)]))
        self._found: list[bytes] = []  #: files that are metadata
        self._matched: set[str] = set()

    def run(self, target: Path) -> GatheredContent:
        """Gather everything.

        Args:
            target: takes a line for each file; see `content.PackageRequest.files`.

        Raises: ItemError, OSError, Stopped.
        """
        described = self._ctx.described(self._options.record)
        owners = _OwnersOfFiles(self._ctx, described, self._stop)
        formats = _Formats(self._ctx, self._options.formats)
        with open(target, "w", encoding="utf-8") as out:
            for entry in self._ctx.source.entries():
                self._stop.check()
                line = as_line(
                    path=entry.path.hex(),
                    size=entry.size,
                    sha256=entry.sha256,
                    at=_moment(entry.mtime_ns / 1e9 if entry.mtime_ns else self._ctx.claimed_at),
                    identifier=self._identifier(entry),
                    format=formats.of(entry),
                    owner=owners.of(entry.path),
                )
                out.write(json.dumps(line) + "\n")
                self._see_metadata(entry)
        known = list(self._known(described, owners))
        package = self._package(known)
        return GatheredContent(
            package=package,
            unmatched=[one for one in self._options.metadata if one not in self._matched],
        )

    def _identifier(self, entry: Entry) -> str:
        path = entry.path.decode("utf-8", "surrogateescape")
        if not self._options.identifier:
            return derived("file", self._options.id, path.encode("utf-8", "surrogateescape").hex())
        values = placeholders.path_values(path) | {"sha256": entry.sha256, "size": str(entry.size)}
        return placeholders.fill(self._options.identifier, values)

    def _see_metadata(self, entry: Entry) -> None:
        name = PurePosixPath(os.fsdecode(entry.path))
        fits = [] if entry.is_dir else [one for one in self._options.metadata if name.match(one)]
        if fits:
            self._matched.update(fits)
            self._found.append(entry.path)

    # -- description -------------------------------------------------------------------------

    def _known(self, described: Described, owners: _OwnersOfFiles) -> Iterator[DescriptiveMetadata]:
        """Yield what is known of the objects: in their order, as files name them by number."""
        given = {
            name: [values] if isinstance(values, str) else values for name, values in self._options.dc.items()
        }
        named = described != Described.nameless(self._ctx.name)
        for each in described.objects:
            terms = [(name, value) for name, values in given.items() for value in values]
            terms += [term for term in descriptive.terms_of(each.description) if term[0] not in given]
            if given or named or not self._options.metadata:
                yield DescriptiveMetadata(
                    terms=tuple(terms), mods=self._options.describe_as == "mods", of_all=not owners.several
                )

    def _package(self, known: list[DescriptiveMetadata]) -> Package:
        options = self._options
        documents = [*known, *(DescriptiveMetadata(file=path.hex()) for path in self._found)]
        events = list(_events(self._profile, [*self._past, self._packing()], self._ctx.job_id))
        agents = {agent.identifier: agent for _, agent in events}
        return Package(
            id=options.id,
            label=options.label,
            values=dict(options.values),
            creator=options.creator,
            created=options.update_of or self._now,
            modified=self._now if options.update_of else "",
            documents=tuple(documents),
            events=tuple(event for event, _ in events),
            agents=tuple(agents.values()),
            identifier_type=options.identifier_type if options.identifier else "UUID",
            identifiers_given=bool(options.identifier),
            charset=options.charset.upper(),
            use=dict(options.use),
        )

    def _packing(self) -> Event:
        at = datetime.fromisoformat(self._now)
        detail = f"METS document and PREMIS {self._profile.premis} by the profile {self._profile.name}"
        return Event(
            type=EventType.PACKING, outcome="success", detail=detail, agent=AGENT, step=self._ctx.step, at=at
        )


class _OwnersOfFiles:
    """Which object each file belongs to, where there is more than one."""

    def __init__(self, ctx: StepContext, described: Described, stop: Stop) -> None:
        self.several = len(described.objects) > 1 or described.objects[0].files is not None
        self._owners = Owners(described)
        self._back = _origins(ctx, ctx.source.made, stop) if self.several else {}

    def of(self, path: bytes) -> int | None:
        """Return the object's number; None for a file of none, or of the only one."""
        return self._owners.of(self._back.get(path, path)) if self.several else None


def _origins(ctx: StepContext, made: Made | None, stop: Stop) -> Mapping[bytes, bytes]:
    if made is None:
        return {}
    before = origins(ctx, made, stop)
    return {one.path: before.get(one.source, one.source) or one.path for one in made.outputs()}


class _Formats:
    """The formats that an identify step has named, read beside the files, which are in the same order."""

    def __init__(self, ctx: StepContext, step: str) -> None:
        self._lines = _lines_of(ctx, step) if step else iter(())
        self._waiting: dict[bytes, dict[str, Any]] = {}

    def of(self, entry: Entry) -> dict[str, str] | None:
        """Return a file's format; None where it is not known."""
        if entry.is_dir:
            return None
        found = self._waiting.pop(entry.path, None)
        while found is None:
            line = next(self._lines, None)
            if line is None:
                return None
            path = paths.path_bytes(line)
            if path == entry.path:
                found = line
            else:
                self._waiting[path] = line
        if found["sha256"] != entry.sha256 or not found["formats"]:
            return None
        first = found["formats"][0]
        return {name: str(first[name]) for name in ("puid", "name", "version", "mime")}


def _lines_of(ctx: StepContext, step: str) -> Iterator[dict[str, Any]]:
    """Yield what an identify step says of each file: a line each, between one before and one behind."""
    made = ctx.made_by(step)
    output = next(made.outputs(), None) if made is not None else None
    if made is None or output is None:
        raise ItemError(
            f'the step "{step}" has named no formats', hint="See formats: of the step package in config.yaml"
        )
    with open(os.path.join(os.fsencode(made.root), output.path), encoding="utf-8") as file:
        if file.readline() != '{"files": [\n':
            raise ItemError(
                f'the list of the step "{step}" cannot be read here',
                where=display(output.path),
                hint=f"Use a step identify with format: json; then: dittohead rerun {ctx.job_id}",
            )
        for line in file:
            if line.startswith("]"):
                return
            yield json.loads(line.rstrip().removesuffix(","))


def _events(profile: Profile, past: Sequence[Event], job: str) -> Iterator[tuple[SipEvent, Agent]]:
    """Yield events in the profile's words, each with its agent; what it leaves out is not among them."""
    for number, event in enumerate(past):
        kind = profile.event_types.get(event.type, event.type.value)
        if not kind:
            continue
        agent = _agent(event.agent)
        at = _moment(event.at.timestamp())
        told = SipEvent(
            identifier=derived("event", job, str(number), event.step, event.type, at),
            type=kind,
            at=at,
            detail=event.detail,
            outcome=profile.outcomes.get(event.outcome, event.outcome),
            agent=agent.identifier,
        )
        yield told, agent


def _agent(told: str) -> Agent:
    name, _, version = told.rpartition(" ")
    if not name or not any(char.isdigit() for char in version):
        name, version = told, ""
    return Agent(identifier=derived("agent", told), name=name or "unknown", version=version)


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
