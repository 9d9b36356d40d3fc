"""unpack: tar and zip archives, also those that gpg has encrypted, in one pass; all is proved first."""

from __future__ import annotations

import asyncio
import base64
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from dittohead.contract.worker import Done, Planned, Recipe, StepContext, StepResult, Worker
from dittohead.model import units
from dittohead.model.errors import ItemError, StepError
from dittohead.model.records import Entry
from dittohead.model.text import display, visible
from dittohead.system.process import environment
from dittohead.system.threads import Stop, in_thread
from dittohead.toolkit.faulty_files import blamed
from dittohead.workers.unpack import gpg, kinds
from dittohead.workers.unpack.broken import BrokenArchive
from dittohead.workers.unpack.options import UnpackOptions, decrypted_name
from dittohead.workers.unpack.passphrases import Passphrases
from dittohead.workers.unpack.streams import into_pipe
from dittohead.workers.unpack.unpacking import Unpacking, archives, kind_of, opened

#: Raised when the same archive and options make other files than before.
_VERSION = "1"


#: Some words that gpg has encrypted with the passphrase "trial".
_TRIAL = base64.b64decode(
    "jA0ECQMCK8TcyEzz3EZg0jsBd+f1/NztWLyo232KNc9V8P1haCZSDBCFmXsWJC3vNPCqQKKRs1lMT/n2YKdbEffNv9ZYIZvXd8Rg9A=="
)


class UnpackWorker(Worker[UnpackOptions]):
    """Makes files of the members of archives: none before each archive is known to be whole and unchanged."""

    name = "unpack"
    Options = UnpackOptions
    makes_outputs = True
    per_file = frozenset({"into"})
    # Page images and text in a gzipped tar: text shrinks to a fifth, and is the smaller part.
    space_factor = 1.5

    def __init__(self) -> None:
        self._passphrases = Passphrases()

    def stage(self, options: Mapping[str, Any]) -> str:
        """Call a folder whose archives were unpacked, or only decrypted."""
        return "decrypted" if options.get("keep") == "archive" else "extracted"

    def check(self, options: UnpackOptions) -> list[str]:
        """See that gpg is there, where it is needed."""
        if options.credential and shutil.which(gpg.GPG.program) is None:
            return [f"gpg is not installed: apt-get install {gpg.GPG.package}"]
        return []

    def target(self, options: UnpackOptions) -> str:
        """Return the passphrase: where it opens nothing, what needs it waits until it is corrected."""
        return f"passphrase {options.credential}" if options.credential else ""

    def recipe(self, options: UnpackOptions) -> Recipe:
        """Return what decides which files are made of an archive."""
        bounds = {"credential", "max_members", "max_member", "max_size", "max_ratio"}
        settings = {key: value for key, value in options.model_dump(mode="json").items() if key not in bounds}
        return Recipe(settings=settings, tools={"unpacker": _VERSION})

    async def doctor(
        self, options: UnpackOptions, secret: Callable[[str], str]
    ) -> AsyncIterator[tuple[bool, str]]:
        """Say whether the passphrase is there, and whether gpg decrypts what it has encrypted here."""
        if not options.credential:
            return
        try:
            self._passphrases.of(options.credential, secret)
            yield (
                True,
                f'the passphrase "{options.credential}" is there; an archive tells whether it is right',
            )
        except StepError as error:
            yield False, str(error)
        problem = await _trial()
        yield not problem, problem or f"gpg {gpg.GPG.version()} decrypts"

    async def preflight(self, ctx: StepContext, options: UnpackOptions) -> Mapping[str, Any]:
        """See, of archives in the folder, that they are such, and that there is a passphrase.

        Raises: ItemError.
        """
        if ctx.source.made is not None:  # nothing is made yet
            return {}
        found = await in_thread(lambda stop: _kinds(ctx, options, stop))
        if "gpg" in found.values():
            self._passphrases.given(ctx, options)
        return {}

    async def plan(self, ctx: StepContext, options: UnpackOptions) -> AsyncIterator[Planned]:
        """Yield what would be made of each archive; its members are known when it is unpacked."""
        for entry in await asyncio.to_thread(lambda: archives(ctx, options)):
            size = units.size(entry.size) if entry.size else ""
            if options.keep != "archive":
                what = f"the members of {visible(display(entry.path))}"
                yield Planned(action="make", what=what, where=_shown_place(options, entry), detail=size)
            if options.keep != "members":
                yield Planned(action="make", what=display(decrypted_name(entry.path)), detail=size)

    async def run(self, ctx: StepContext, options: UnpackOptions) -> StepResult:
        """Unpack all archives again: what an earlier try left is removed first."""
        result: Done = await Unpacking(ctx, options, self._passphrases).run()
        return result


def _shown_place(options: UnpackOptions, entry: Entry) -> str:
    try:
        return display(options.place_of(entry.path))
    except ValueError as error:
        raise ItemError(f'the members cannot go to "{error}"', where=display(entry.path)) from error


def _kinds(ctx: StepContext, options: UnpackOptions, stop: Stop) -> dict[bytes, str]:
    """Return what each archive is, by its first bytes. Raises: ItemError: one is none."""
    found = {}
    for entry in archives(ctx, options):
        stop.check()
        with opened(ctx, entry) as fd:
            found[entry.path] = kind_of(fd)
        if found[entry.path] in ("", "page"):
            raise _not_one(ctx, entry, found[entry.path])
    return found


def _not_one(ctx: StepContext, entry: Entry, kind: str) -> ItemError:
    if kind == "page":
        what = kinds.IS_PAGE
        hint = "What was fetched is an error or a sign-in: fetch it again, then drop the folder again"
    else:
        what = kinds.IS_NONE if entry.size else kinds.IS_EMPTY
        hint = "See match: of the step unpack, or fetch it again, then drop the folder again"
    return blamed(ItemError(what, where=display(entry.path), hint=hint), ctx.source, entry.path)


async def _trial() -> str:
    """Return why gpg cannot decrypt here; "" when it can."""
    try:
        with tempfile.TemporaryDirectory(prefix="dittohead-gpg-") as place:
            async with gpg.decrypting(Path(place) / "home", "trial", environment()) as program:
                await in_thread(lambda stop: into_pipe(iter([_TRIAL]), program.stdin, stop))
                await program.judge()
    except (BrokenArchive, gpg.WrongPassphrase, StepError, OSError) as error:
        return f"gpg does not decrypt here: {error}"
    return ""
