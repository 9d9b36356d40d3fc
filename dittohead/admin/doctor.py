"""What `doctor` looks at: permissions, programs, the image library, targets."""

from __future__ import annotations

import asyncio
import dataclasses
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dittohead.admin import uploader_setup
from dittohead.admin.tokens import parse as parse_tokens
from dittohead.config.loader import Config, SourceSetting, Step
from dittohead.config.notice_rules import Rule, shown
from dittohead.config.registry import Registry, sources
from dittohead.contract import placeholders
from dittohead.folders.stations import Stations
from dittohead.model.errors import DittoheadError, StationError
from dittohead.model.states import Station
from dittohead.model.text import counted
from dittohead.store import Store
from dittohead.store import jobs as job_store
from dittohead.store import outbox as outbox_store
from dittohead.store.keeping import keep
from dittohead.system import lock, trust
from dittohead.system.mounts import filesystem_type, needs_polling
from dittohead.system.users import is_known, owner


@dataclass(frozen=True, kw_only=True)
class DoctorFinding:
    """One thing looked at."""

    level: str  #: "good", "warning" or "bad"
    about: str
    message: str


#: Looks at receivers of notices without sending any: (rules, a credential by name) to (good, which, what).
Receivers = Callable[[Sequence[Rule], Callable[[str], str]], Awaitable[Iterable[tuple[bool, str, str]]]]


async def examine(
    config: Config,
    workers: Registry,
    secret: Callable[[str], str],
    store: Store | None = None,
    receivers: Receivers | None = None,
) -> list[DoctorFinding]:
    """Look at everything; never raises for what is wrong, but reports it.

    Args:
        config: the configuration whose pipelines, sources and receivers are looked at.
        workers: the kinds of steps there are.
        secret: a credential by name. It raises DittoheadError where there is none.
        store: None where there is none yet.
        receivers: looks at receivers of notices; None: they are left out.
    """
    found = await asyncio.to_thread(lambda: list(exposures(config)))
    found.extend(await asyncio.to_thread(_stations, config))
    found.extend(await asyncio.to_thread(_uploaders, config))
    found.extend(await asyncio.to_thread(lambda: list(_http(config, secret))))
    for pipeline in config.pipelines:
        for step in pipeline.steps:
            about = f"{pipeline.name}, step {step.name}"
            found.extend([f async for f in _step(workers, secret, step, about)])
    found = _once_each(found)
    for setting in config.sources:
        about = f"source {setting.name}"
        try:
            async for good, message in _of_source(config, setting, secret, store):
                found.append(DoctorFinding(level="good" if good else "bad", about=about, message=message))
        except (DittoheadError, OSError) as error:
            found.append(DoctorFinding(level="bad", about=about, message=str(error)))
    found.extend(await asyncio.to_thread(_notices, config, store))
    if receivers is not None:
        for good, to, message in await receivers(config.settings.notify, secret):
            level = "good" if good else "bad"
            found.append(DoctorFinding(level=level, about=f"notify, {to}", message=message))
    return found


def _of_source(
    config: Config, setting: SourceSetting, secret: Callable[[str], str], store: Store | None
) -> AsyncIterator[tuple[bool, str]]:
    """Have a source say what is right and wrong; where there is no store yet it has kept nothing."""
    source = sources().get(setting.kind)
    if store is None:
        return source.doctor(setting.options, secret)
    return source.examine(setting.options, keep(store, Stations(config.root).state, setting.name, secret))


def _once_each(found: list[DoctorFinding]) -> list[DoctorFinding]:
    """Return findings with each fault once, of all that it is about: a host that is down is many steps'."""
    about: dict[str, list[str]] = {}
    for one in found:
        if one.level == "bad":
            about.setdefault(one.message, []).append(one.about)
    merged: list[DoctorFinding] = []
    for one in found:
        if one.level != "bad":
            merged.append(one)
        elif names := about.pop(one.message, []):
            merged.append(dataclasses.replace(one, about="; ".join(dict.fromkeys(names))))
    return merged


def exposures(config: Config) -> Iterator[DoctorFinding]:
    """Say who else may change what this goes by, or read its secrets. Blocking."""
    for path, message in dict([*trust.exposed(config.path), *_gone_by(config)]).items():
        yield DoctorFinding(level="bad", about=path, message=message)


def _gone_by(config: Config) -> Iterator[tuple[str, str]]:
    """Yield (path, what is wrong) of the files and programs that a configuration names."""
    here, settings = config.path.resolve().parent, config.settings
    named = [here / path for path in (settings.templates, settings.uploaders_file) if path]
    named += [inside for place in named if place.is_dir() for inside in sorted(place.iterdir())]
    for pipeline in config.pipelines:
        for step in pipeline.steps:
            argv = step.options.get("argv", ()) if step.worker == "command" else ()
            # Scripts too, which an interpreter is given; not /dev/null and the like.
            named += [Path(word) for word in argv if word.startswith("/") and Path(word).is_file()]
    for path in named:
        yield from trust.written(path)


def _notices(config: Config, store: Store | None) -> list[DoctorFinding]:
    """Say which receivers get nothing, which names nobody has, and whose address is not known."""
    rules = config.settings.notify
    found = []
    for name in sorted({name for rule in rules for name in rule.uploaders}):
        if not is_known(name.removeprefix("@")):
            message = f"there is no group or user {name}: that entry matches no user or group"
            found.append(DoctorFinding(level="warning", about="notify, uploaders", message=message))
    if not rules or store is None:
        return found
    known, uids = store.run(outbox_store.receiver_rows), store.run(job_store.uploaders)
    for number, rule in enumerate(rules, 1):
        row = known.get(rule.key)
        if row is not None and row.disabled_at is not None:
            called = rule.name or number
            message = f"gets no notices: {row.error}. When it is fixed: dittohead notify test {called}"
            found.append(DoctorFinding(level="bad", about=f"notify, {shown(rule)}", message=message))
    if any(rule.to_uploader for rule in rules):
        unknown = [
            whose.user
            for whose in map(owner, uids)
            if not {str(whose.uid), whose.user} & config.addresses.keys()
        ]
        if unknown:
            message = f"{', '.join(unknown)} has no address under uploaders:, and is told nothing"
            found.append(DoctorFinding(level="warning", about="notify, uploaders", message=message))
    return found


def _stations(config: Config) -> list[DoctorFinding]:
    stations = Stations(config.root)
    found = []
    if not config.root.is_dir():
        message = f"{config.root} is not a directory; correct root, or make it: dittohead init"
        return [DoctorFinding(level="bad", about="stations", message=message)]
    try:
        stations.prepare()
    except StationError as error:
        return [DoctorFinding(level="bad", about="stations", message=str(error))]
    found.append(
        DoctorFinding(
            level="good",
            about="stations",
            message=f"{config.root}: folders can be renamed between them",
        )
    )
    kind = filesystem_type(stations.path(Station.INBOX))
    how = "polled" if needs_polling(kind) else "watched by inotify"
    found.append(DoctorFinding(level="good", about="inbox", message=f"on {kind}, {how}"))
    found.extend(_handover(stations))
    running = "a daemon runs on this root" if lock.is_held(stations.state) else "no daemon runs here"
    found.append(DoctorFinding(level="good", about="daemon", message=running))
    return found


def _handover(stations: Stations) -> Iterator[DoctorFinding]:
    """Say which of the three set-ups for uploaders holds, and what lies in the inbox that cannot be taken."""
    try:
        for seen in uploader_setup.examine(stations):
            level = "good" if seen.good else "warning"
            yield DoctorFinding(level=level, about="permissions", message=seen.message)
    except OSError as error:
        yield DoctorFinding(level="bad", about="inbox", message=f"it cannot be looked at ({error.strerror})")


def _http(config: Config, secret: Callable[[str], str]) -> Iterator[DoctorFinding]:
    """Say who may come in over the network, and which tokens cannot be read."""
    settings = config.settings.http
    if settings is None:
        return
    about = f"http on {settings.listen}"
    if settings.open_to_read:
        yield DoctorFinding(level="good", about=about, message="everybody who reaches it may read")
    if settings.tokens is not None:
        try:
            known, problems = parse_tokens(secret(settings.tokens))
        except DittoheadError as error:
            yield DoctorFinding(level="bad", about=about, message=str(error))
            return
        for problem in problems:
            yield DoctorFinding(level="bad", about=about, message=f"credential {settings.tokens}, {problem}")
        yield DoctorFinding(level="good", about=about, message=counted(len(known), "token"))


def _uploaders(config: Config) -> list[DoctorFinding]:
    """Say who may use which pipeline, and whether people can be told apart at all."""
    found = []
    for pipeline in config.pipelines:
        names = pipeline.settings.uploaders
        unknown = [name for name in names if not is_known(name)]
        about = f"{pipeline.name}, uploaders"
        if unknown:
            message = f"there is no group or user {', '.join(unknown)}: nobody is admitted by that"
            found.append(DoctorFinding(level="warning", about=about, message=message))
        elif names:
            found.append(DoctorFinding(level="good", about=about, message=", ".join(names)))
    inbox = Stations(config.root).path(Station.INBOX)
    if found and inbox.is_dir() and not uploader_setup.is_shared(inbox):
        message = (
            "all uploads come from one user, no matter who made them: uploaders cannot tell people apart"
        )
        found.append(DoctorFinding(level="warning", about="uploaders", message=message))
    return found


async def _step(
    workers: Registry, secret: Callable[[str], str], step: Step, about: str
) -> AsyncIterator[DoctorFinding]:
    worker = workers.get(step.worker)
    with tempfile.TemporaryDirectory() as work:
        known = {"name": "NAME", "id": "ID", "date": "DATE", "payload": work, "work": work}
        try:
            given = placeholders.render_options(step.options, _AnyGroup(known), worker)
            options = worker.Options.model_validate(given)
            async for good, message in worker.examine(options, secret, step.options):
                yield DoctorFinding(level="good" if good else "bad", about=about, message=message)
        except (DittoheadError, OSError, ValueError) as error:
            yield DoctorFinding(level="bad", about=about, message=str(error))


class _AnyGroup(dict[str, str]):
    """Stands in for the match's groups, which no folder has given yet."""

    def get(self, key: str, default: object = None) -> str:
        return self[key] if key in self else key.upper()
