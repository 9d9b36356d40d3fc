"""One try of one unpack step: each archive through its pass; nothing is made before all are sound."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Iterator
from functools import partial
from typing import IO

from dittohead.contract.worker import Done, StepContext
from dittohead.model import units
from dittohead.model.errors import ItemError, ungrouped
from dittohead.model.events import AGENT, Event, EventType
from dittohead.model.records import Entry, Output
from dittohead.model.text import counted, display, visible
from dittohead.system import fail_points, files
from dittohead.system.threads import Stop, in_thread
from dittohead.toolkit.faulty_files import blamed
from dittohead.workers.unpack import gpg, kinds
from dittohead.workers.unpack.broken import FETCH_AGAIN, BrokenArchive, RefusedMember
from dittohead.workers.unpack.extraction import Extraction
from dittohead.workers.unpack.globs import Globs
from dittohead.workers.unpack.members import Bounds, Gate
from dittohead.workers.unpack.options import UnpackOptions, decrypted_name
from dittohead.workers.unpack.passphrases import Passphrases
from dittohead.workers.unpack.streams import Digest, Flow, into_pipe, of_file, of_pipe


def archives(ctx: StepContext, options: UnpackOptions) -> list[Entry]:
    """Return the archives among the files a step takes. Raises: ItemError: there are none, or others."""
    wanted = Globs(options.match, caseless=True)
    found: list[Entry] = []
    others: list[Entry] = []
    for entry in ctx.source.entries():
        if not entry.is_dir:
            (found if wanted.fit_file(entry.path) else others).append(entry)
    if others and options.others == "fail":
        raise ItemError(
            f"{counted(len(others), 'file')} beside the archives would be left out, such as "
            f"{visible(display(others[0].path))}",
            hint="Correct match:, or set others: skip",
        )
    if not found:
        raise ItemError("there is no archive here", hint="See match: and from: of the step unpack")
    return found


def opened(ctx: StepContext, entry: Entry) -> contextlib.AbstractContextManager[int]:
    """Open an archive. Raises: ItemError, OSError."""
    return files.opened_beneath(ctx.source.root, entry.path)


def kind_of(fd: int) -> str:
    """Return what an open file is; see `kinds.kind_of`."""
    return kinds.kind_of(os.pread(fd, kinds.HEAD, 0))


class Unpacking:
    """Takes archives one after another into a scratch directory, which becomes the step's own at the end."""

    def __init__(self, ctx: StepContext, options: UnpackOptions, passphrases: Passphrases) -> None:
        self.ctx, self.options, self._passphrases = ctx, options, passphrases
        self._scratch = ctx.work.parent / f"{ctx.step}.scratch"
        self._tree = self._scratch / "files"
        self._archives: list[Entry] = []
        self._outputs: list[Output] = []
        self._events: list[Event] = []
        self._come = 0  #: bytes of archives so far
        self._gate = self._new_gate()

    async def run(self) -> Done:
        """Unpack everything. Raises: StepError, OSError."""
        try:
            await in_thread(self._prepare)
            for entry in self._archives:
                await self._archive(entry)
            fail_points.point("unpack.judged")
            await self.ctx.fence()
            await in_thread(self._publish)
        finally:
            await asyncio.to_thread(shutil.rmtree, self._scratch, ignore_errors=True)
        return self._told()

    # -- before and after --------------------------------------------------------------------

    def _new_gate(self) -> Gate:
        options = self.options
        bounds = Bounds(
            members=options.max_members,
            member_size=options.max_member,
            size=options.max_size,
            ratio=options.max_ratio,
        )
        return Gate(
            prefix=options.prefix.encode("utf-8", "surrogateescape"),
            allowed=Globs(options.members),
            skip=options.unlisted == "skip",
            keep_alike=options.alike == "keep",
            bounds=bounds,
        )

    def _prepare(self, stop: Stop) -> None:
        """Remove what an earlier try left, so that no more than one copy of the members is ever there."""
        self._archives = archives(self.ctx, self.options)
        shutil.rmtree(self._scratch, ignore_errors=True)
        files.empty(self.ctx.work, stop.check)
        self._scratch.mkdir(mode=0o700)
        self._tree.mkdir()

    def _publish(self, stop: Stop) -> None:
        # 1 members and names durable  2 rename over the empty directory  3 fsync parent
        files.sync_filesystem(self._tree)
        fail_points.point("unpack.durable")
        os.rename(self._tree, self.ctx.work)
        fail_points.point("unpack.published")
        files.fsync_dir(self.ctx.work.parent)

    def _told(self) -> Done:
        for output in self._outputs:
            self.ctx.output(output)
        for event in self._events:
            self.ctx.event(event)
        size = units.size(sum(output.size for output in self._outputs))
        words = [f"{counted(len(self._outputs), 'file')}, {size}"]
        words += [f"of {counted(len(self._archives), 'archive')}"] if len(self._archives) > 1 else []
        words += [f"{counted(self._gate.left_out, 'member')} left out"] if self._gate.left_out else []
        return Done(detail=", ".join(words))

    # -- one archive -------------------------------------------------------------------------

    async def _archive(self, entry: Entry) -> None:
        extraction = self._extraction(entry)
        decrypted = Digest()
        try:
            with opened(self.ctx, entry) as fd:
                encrypted = await in_thread(lambda stop: kind_of(fd)) == "gpg"
                if encrypted:
                    await self._decrypted(entry, fd, extraction, decrypted)
                else:
                    await in_thread(partial(self._plain, fd, extraction, decrypted))
                    _same(entry, decrypted)
            extraction.compare()
            if not extraction.made:
                raise RefusedMember("it holds no files", hint="Ask who made the archive, or see members:")
        except BrokenArchive as error:
            raise self._faulty(entry, f"the archive is damaged: {error}", FETCH_AGAIN) from error
        except RefusedMember as error:
            member = f': "{visible(display(error.member))}"' if error.member else ""
            raise self._faulty(entry, f"{error.what}{member}", error.hint) from error
        fail_points.point("unpack.written")
        await in_thread(lambda stop: self._record(entry, extraction, decrypted, encrypted=encrypted))

    def _extraction(self, entry: Entry) -> Extraction:
        options = self.options
        try:
            self._gate.into = options.place_of(entry.path)
        except ValueError as error:
            raise self._error(
                entry, f'its members cannot go to "{error}"', "Rename it, or see into:"
            ) from error
        self._gate.packed += entry.size
        kept = None
        if options.keep != "members":
            name = self._gate.into + decrypted_name(entry.path)
            kept = self._tree / os.fsdecode(name)
            try:
                self._gate.reserve(name)
            except RefusedMember as error:
                raise self._error(entry, error.what, error.hint) from error
            kept.parent.mkdir(parents=True, exist_ok=True)
        return Extraction(
            gate=self._gate,
            root=None if options.keep == "archive" else self._tree,
            kept=kept,
            spool=self._scratch / "spool",
            checksums=options.checksums.encode("utf-8", "surrogateescape"),
            progress=self._progress,
        )

    def _progress(self, size: int) -> None:
        self._come += size
        self.ctx.progress(self._come, sum(entry.size for entry in self._archives), "bytes")

    def _plain(self, fd: int, extraction: Extraction, digest: Digest, stop: Stop) -> None:
        extraction.take(lambda flow: of_file(fd, digest, flow), stop)

    async def _decrypted(self, entry: Entry, fd: int, extraction: Extraction, decrypted: Digest) -> None:
        """Let an archive through gpg.

        Where what gpg gives out is broken, gpg is heard first: that may be because the archive is.
        Raises: Broken, RefusedMember, StepError, OSError.
        """
        given = self._passphrases.given(self.ctx, self.options)
        encrypted = Digest()
        async with gpg.decrypting(self._scratch / "gnupg", given.passphrase, self.ctx.env) as program:
            with ungrouped(RefusedMember, ItemError, OSError):
                async with asyncio.TaskGroup() as group:
                    group.create_task(
                        in_thread(
                            lambda stop: into_pipe(of_file(fd, encrypted, stop), program.stdin, stop),
                        )
                    )
                    taking = group.create_task(
                        in_thread(partial(self._taken, program.stdout, extraction, decrypted))
                    )
            try:
                await program.judge()
            except gpg.WrongPassphrase:
                raise given.refused(entry.sha256, self._where(entry)) from None
            except ItemError as error:
                raise self._faulty(entry, error.what, error.hint) from error
        _same(entry, encrypted)
        given.accepted()
        if (broken := taking.result()) is not None:
            raise broken

    def _taken(
        self, pipe: IO[bytes], extraction: Extraction, digest: Digest, stop: Stop
    ) -> BrokenArchive | None:
        """Take what gpg gives out; return how it is broken, when all of it was read."""

        def pieces(flow: Flow | Stop) -> Iterator[bytes]:
            for piece in of_pipe(pipe, flow):
                digest.update(piece)
                yield piece

        try:
            extraction.take(pieces, stop)
        except BrokenArchive as error:
            for _ in pieces(stop):
                if digest.size > self._gate.most:
                    pipe.close()
                    break
            return error
        return None

    # -- what is told ------------------------------------------------------------------------

    def _record(self, entry: Entry, extraction: Extraction, decrypted: Digest, *, encrypted: bool) -> None:
        listed = {"listed_in": self.options.checksums} if self.options.checksums else {}
        if extraction.kept is not None:
            path = os.fsencode(extraction.kept.relative_to(self._tree))
            self._outputs.append(
                Output(path=path, size=decrypted.size, sha256=decrypted.sha256, source=entry.path)
            )
        if extraction.root is not None:
            self._outputs += [
                Output(
                    path=made.place,
                    size=made.size,
                    sha256=made.sha256,
                    source=entry.path,
                    detail={"md5": made.md5, **(listed if made.name != extraction.checksums else {})},
                )
                for made in extraction.made
            ]
        name = visible(display(entry.path))
        if encrypted:
            detail = (
                f"{name}, SHA-256 {entry.sha256}: decrypted, integrity confirmed, "
                f"{decrypted.size:,} bytes, SHA-256 {decrypted.sha256}"
            )
            agent = f"gpg {gpg.GPG.version()}"
            self._events.append(
                Event(type=EventType.DECRYPTION, outcome="success", detail=detail, agent=agent)
            )
        detail = f"{name}, SHA-256 {entry.sha256}: {counted(len(extraction.made), 'member')}, read to the end"
        self._events.append(Event(type=EventType.UNPACKING, outcome="success", detail=detail, agent=AGENT))
        if self.options.checksums:
            detail = f"{name}: all members as {self.options.checksums} says, and no others"
            self._events.append(Event(type=EventType.FIXITY, outcome="success", detail=detail, agent=AGENT))

    def _where(self, entry: Entry) -> str:
        return os.fsdecode(entry.path)

    def _error(self, entry: Entry, what: str, hint: str) -> ItemError:
        return ItemError(what, where=self._where(entry), hint=hint)

    def _faulty(self, entry: Entry, what: str, hint: str) -> ItemError:
        """Return the error of an archive that another one may take the place of."""
        return blamed(self._error(entry, what, hint), self.ctx.source, entry.path)


def _same(entry: Entry, digest: Digest) -> None:
    """See that what was read is the archive that was claimed. Raises: ItemError."""
    if digest.sha256 != entry.sha256:
        raise ItemError(
            "the archive is not what it was at the claim, or when the step before was done",
            where=os.fsdecode(entry.path),
            hint="Compare it with the original, then drop the folder again",
        )
