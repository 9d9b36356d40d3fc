"""package: a submission information package of the files that the step takes, validated before it counts."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from dittohead.contract.worker import Done, Planned, Recipe, StepContext, StepResult, Worker
from dittohead.model import units
from dittohead.model.errors import ItemError
from dittohead.model.events import AGENT, Event, EventType
from dittohead.model.records import Output
from dittohead.model.text import counted
from dittohead.system import files
from dittohead.system.threads import in_thread
from dittohead.toolkit.sip import accession, process, profile, schemas
from dittohead.toolkit.sip.content import PackageRequest
from dittohead.toolkit.sip.profile import BadPackageProfile, Profile
from dittohead.toolkit.sip.signature import BadKey, Signer, lines
from dittohead.workers.package.archive import METS, PackageArchive, PackageParts
from dittohead.workers.package.gathering import GatheredContent, Gathering
from dittohead.workers.package.options import OF_HISTORY, PackageOptions

#: Raised when the same files, options and events make another package than before.
_VERSION = "1"

_METS = METS.decode()

#: Findings that a reason names, of those that are not about files.
_NAMED = 5

#: Days before a certificate's end from which on doctor warns.
_SOON = 30


class PackageWorker(Worker[PackageOptions]):
    """Writes METS and PREMIS, validates them, and packs them with the files, each compared meanwhile."""

    name = "package"
    Options = PackageOptions
    makes_outputs = True
    packs = True
    space_factor = 1.1
    takes = frozenset({"formats"})
    knows = frozenset({"record"})
    per_file = frozenset({"identifier"})

    def check(self, options: PackageOptions) -> list[str]:
        """See that the profile can be read, and that it is given what it asks for."""
        try:
            wanted = profile.read(options.profile)
        except (OSError, BadPackageProfile) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            known = ", ".join(profile.names())
            return [f"profile: {options.profile}: {reason}; there are {known}, or give a file's path"]
        found = [one for one in _problems(wanted, options) if "{" not in one]
        if options.schemas is not None:
            gone = schemas.missing(wanted, options.schemas)
            found += [f"schemas: {options.schemas} lacks {', '.join(gone)}"] if gone else []
        return found

    def recipe(self, options: PackageOptions) -> Recipe:
        """Return what decides the package beside the files and what happened to them."""
        settings = options.model_dump(mode="json", exclude={"memory", "timeout"})
        return Recipe(settings=settings, tools={"packager": _VERSION})

    async def doctor(
        self, options: PackageOptions, secret: Callable[[str], str]
    ) -> AsyncIterator[tuple[bool, str]]:
        """Say whether the key can sign, and for how long."""
        if not options.signing_credential:
            return
        name = options.signing_credential
        try:
            certificate = Signer(secret(name)).certificate
        except (BadKey, ItemError) as error:
            yield False, f"{name}: {error}"
            return
        end = certificate.not_valid_after_utc
        left = end - datetime.now(UTC)
        yield left.days >= _SOON, f"{name} signs; its certificate is valid until {end:%Y-%m-%d}"

    async def plan(self, ctx: StepContext, options: PackageOptions) -> AsyncIterator[Planned]:
        """Yield the package. Raises: ItemError: the profile is not given what it asks for."""
        wanted = await asyncio.to_thread(_profile, options)
        name = _name(ctx, options, wanted)
        if _form(options, wanted) == "folder":
            ctx.output(Output(path=METS, size=0, sha256=""))
        else:
            ctx.output(Output(path=os.fsencode(name), size=0, sha256=""))
        yield Planned(
            action="make", what=name, detail=f"{counted(ctx.source.files, 'file')}, by {wanted.name}"
        )

    async def run(self, ctx: StepContext, options: PackageOptions) -> StepResult:
        """Make the package again from the beginning. Twice leaves the same bytes."""
        wanted = await asyncio.to_thread(_profile, options)
        signer = await asyncio.to_thread(_signer, ctx, options)
        scratch = ctx.work / ".scratch.tmp"
        await asyncio.to_thread(_empty, ctx.work, scratch)
        past = await ctx.history()
        if options.update_of == OF_HISTORY:
            first = accession.first_version(await ctx.history(earlier=True), options.id)
            options = options.model_copy(update={"update_of": first})
        gathered = await in_thread(
            lambda stop: Gathering(ctx, options, wanted, past, stop).run(scratch / "files.jsonl")
        )
        made = await _document(ctx, options, wanted, gathered, scratch)
        documents = {METS: scratch / _METS}
        if signer is not None and wanted.signature:
            signature = scratch / "signature"
            signed = await asyncio.to_thread(signer.sign, lines(_METS, made.result["sha256"]))
            await asyncio.to_thread(files.write_durably, signature, signed)
            documents[wanted.signature.encode()] = signature
        parts = PackageParts(
            documents=documents,
            mets_sha256=made.result["sha256"],
            identifier=options.id,
            label=options.label,
            creator=options.creator,
            date=(gathered.package.modified or gathered.package.created)[:10],
            created=gathered.package.created,
            is_update=bool(gathered.package.modified),
        )
        form, name = _form(options, wanted), _name(ctx, options, wanted)
        await in_thread(lambda stop: PackageArchive(ctx, wanted, form, name, stop).make(parts))
        await asyncio.to_thread(shutil.rmtree, scratch)
        for output in parts.outputs:
            ctx.output(output)
        return _done(ctx, wanted, made, parts)


async def _document(
    ctx: StepContext, options: PackageOptions, wanted: Profile, gathered: GatheredContent, scratch: Path
) -> process.MetsResult:
    """Have the METS document made. Raises: ItemError: something is wrong, with all that is."""
    request = PackageRequest(
        profile=wanted,
        package=gathered.package,
        root=str(ctx.source.root),
        files=str(scratch / "files.jsonl"),
        target=str(scratch / _METS),
        scratch=str(scratch),
        schemas=str(options.schemas) if options.schemas is not None else "",
    )
    made = await process.make(
        request,
        env=ctx.env,
        log=ctx.log_file(),
        memory=options.memory,
        timeout_s=options.timeout,
        progress=lambda done: ctx.progress(done, ctx.source.files, "files"),
    )
    others = [f"no file fits {one}" for one in gathered.unmatched] + made.others
    if others or made.count:
        raise _refused(ctx, made, others)
    return made


def _refused(ctx: StepContext, made: process.MetsResult, others: Sequence[str]) -> ItemError:
    parts = [f"{counted(made.count, 'finding')}: {made.faulty}"] if made.count else []
    parts += others[:_NAMED]
    parts += [f"and {len(others) - _NAMED} findings more"] if len(others) > _NAMED else []
    what = f"no package can be made of this: {'; '.join(parts)}"
    ctx.event(Event(type=EventType.VALIDATION, outcome="failure", detail=what, agent=AGENT))
    hint = (
        f"All findings: dittohead logs {ctx.job_id}. Correct the folder, or the step in config.yaml; then: "
    )
    error = ItemError(what, where=ctx.name, hint=f"{hint}dittohead rerun {ctx.job_id}")
    if ctx.source.made is None:
        error.files = made.named
    return error


def _done(ctx: StepContext, wanted: Profile, made: process.MetsResult, parts: PackageParts) -> Done:
    told = made.result
    words = [f"{parts.identifier} by {wanted.name}: {counted(told['files'], 'file')}"]
    words += [units.size(sum(output.size for output in parts.outputs))]
    words += [f"METS with {', '.join(told['kinds'])}"] if told["kinds"] else []
    words += [f"MIX of {counted(told['images'], 'image')}"] if told["images"] else []
    notes = [f"the formats of {counted(told['unknown'], 'file')} not known"] if told["unknown"] else []
    notes += [f"{counted(told['unread'], 'image header')} not read"] if told["unread"] else []
    notes += [f"{counted(told['folders'], 'empty folder')} only in METS"] if told["folders"] else []
    detail = ", ".join(words)
    if told["validated"]:
        valid = f"the METS document (SHA-256 {told['sha256']}) is valid by {' and '.join(told['validated'])}"
        ctx.event(Event(type=EventType.VALIDATION, outcome="success", detail=valid, agent=AGENT))
    else:
        notes.append("not validated: schemas: is not set")
    outcome = "warning" if notes else "success"
    detail = "; ".join([detail, *notes])
    ctx.event(Event(type=EventType.PACKING, outcome=outcome, detail=detail, agent=AGENT))
    return Done(detail=detail)


def _profile(options: PackageOptions) -> Profile:
    """Return the profile. Raises: ItemError: it is none, or is not given what it asks for."""
    try:
        wanted = profile.read(options.profile)
    except (OSError, BadPackageProfile) as error:
        raise ItemError(f"the profile cannot be used: {error}", where=options.profile) from error
    problems = _problems(wanted, options)
    if problems:
        hint = "Correct the step package in config.yaml"
        raise ItemError("; ".join(problems), where=f"profile {wanted.name}", hint=hint)
    return wanted


def _problems(wanted: Profile, options: PackageOptions) -> list[str]:
    found = wanted.problems(options.values)
    if wanted.mets.creator_required and not options.creator:
        found.append("creator: is missing: the organization that makes the package")
    if wanted.schemas.required and options.schemas is None:
        found.append("schemas: is missing: the directory of the schemas that the profile demands")
    if bool(wanted.signature) != bool(options.signing_credential):
        what = "is missing" if wanted.signature else "has no meaning"
        found.append(f"signing_credential: {what} with the profile {wanted.name}")
    for use in dict.fromkeys(options.use.values()):
        if wanted.uses and use not in wanted.uses:
            found.append(f"use: {use} is not one of {', '.join(wanted.uses)}")
    return found


def _signer(ctx: StepContext, options: PackageOptions) -> Signer | None:
    if not options.signing_credential:
        return None
    try:
        return Signer(ctx.secret(options.signing_credential))
    except BadKey as error:
        hint = f"Correct it; then: dittohead retry {ctx.job_id}"
        where = f"credential {options.signing_credential}"
        raise ItemError(f"this credential cannot sign: {error}", where=where, hint=hint) from None


def _form(options: PackageOptions, wanted: Profile) -> Literal["folder", "tar", "zip"]:
    return options.form or wanted.form


def _name(ctx: StepContext, options: PackageOptions, wanted: Profile) -> str:
    form = _form(options, wanted)
    return options.path or (ctx.name if form == "folder" else f"{ctx.name}.{form}")


def _empty(work: Path, scratch: Path) -> None:
    files.empty(work)
    scratch.mkdir()
