"""google-books: a Google Books volume compared with its own checksums; its record, text and pages listed."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dittohead.contract.worker import Done, Planned, Recipe, StepContext, StepResult, Worker
from dittohead.model.errors import ItemError
from dittohead.model.events import AGENT, Event, EventType
from dittohead.model.records import Entry, Output
from dittohead.model.text import counted, display, visible
from dittohead.system import files
from dittohead.system.threads import Stop, in_thread
from dittohead.toolkit import checksum_lists
from dittohead.toolkit.result_cache import keep_only, name_digest
from dittohead.workers.google_books import mets
from dittohead.workers.google_books.options import GoogleBooksOptions
from dittohead.workers.google_books.pages import Volume, VolumePage

#: Raised when the same volume and options make other files than before.
_VERSION = "1"

#: Bytes of a page's text or of the list of checksums that are read; a page has some thousand.
_TEXT_MOST = 64 << 20

_AGAIN = "Fetch the volume again, then drop the folder again; if it is the same, tell Google"


class GoogleBooksWorker(Worker[GoogleBooksOptions]):
    """Compares a volume with its `checksum.md5` and METS; writes its MARC record, text and list of pages."""

    name = "google-books"
    Options = GoogleBooksOptions
    makes_outputs = True
    space_factor = 0.2

    def stage(self, options: Mapping[str, Any]) -> str:
        """Call a folder that was processed."""
        return "processed"

    def recipe(self, options: GoogleBooksOptions) -> Recipe:
        """Return what decides the files beside the volume."""
        return Recipe(settings=options.model_dump(mode="json"), tools={"google-books": _VERSION})

    async def plan(self, ctx: StepContext, options: GoogleBooksOptions) -> AsyncIterator[Planned]:
        """Yield what would be written."""
        for name in _names(_barcode(ctx, options), options):
            ctx.output(Output(path=os.fsencode(name), size=0, sha256=""))
            yield Planned(action="make", what=name)

    async def run(self, ctx: StepContext, options: GoogleBooksOptions) -> StepResult:
        """Compare, then write. Twice leaves the same files."""
        return await in_thread(lambda stop: _Reading(ctx, options, stop).done())


def _barcode(ctx: StepContext, options: GoogleBooksOptions) -> str:
    return options.barcode or ctx.name


def _names(barcode: str, options: GoogleBooksOptions) -> list[str]:
    ocr = [f"{barcode}_ocr.jsonl"] if options.ocr != "none" else []
    return [f"{barcode}_marc.xml", *ocr, f"{barcode}_pages.csv"]


@dataclass(frozen=True, kw_only=True)
class _Text:
    """A page's text."""

    page: str
    text: str  #: bytes that are not UTF-8 replaced by U+FFFD
    is_utf8: bool


class _Reading:
    """One try of one step. Blocking."""

    def __init__(self, ctx: StepContext, options: GoogleBooksOptions, stop: Stop) -> None:
        self.ctx, self.options, self._stop = ctx, options, stop
        self._files = list(self._given())
        self._odd: list[bytes] = []  #: texts that are not UTF-8

    def done(self) -> Done:
        """Do it. Raises: ItemError, OSError."""
        self._compare()
        volume = Volume.of(self._files)
        self._see_pages(volume)
        name, read = self._mets(volume)
        barcode = self._see_barcode(name, read)
        made = list(self._write(volume, read, barcode))
        keep_only(self.ctx.work, [name_digest(output.path) for output in made], self._stop)
        for output in made:
            self.ctx.output(output)
        self._tell(volume, read, barcode)
        title = f": {visible(read.title)[:100]}" if read.title else ""
        return Done(detail=f"{barcode}, {counted(len(volume.pages), 'page')}{title}")

    def _given(self) -> Iterator[Output]:
        """Yield the volume's files, with their MD5 as the step before has taken it, otherwise read for it."""
        made = self.ctx.source.made
        known = {} if made is None else {one.path: one for one in made.outputs()}
        for entry in self.ctx.source.entries():
            self._stop.check()
            if not entry.is_dir:
                one = known.get(entry.path)
                md5 = one.detail.get("md5") if one is not None else None
                detail = {"md5": md5 or self._md5(entry)}
                yield Output(path=entry.path, size=entry.size, sha256=entry.sha256, detail=detail)

    def _md5(self, entry: Entry) -> str:
        md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
        with files.opened_beneath(self.ctx.source.root, entry.path) as fd:
            while piece := os.read(fd, files.BLOCK):
                self._stop.check()
                md5.update(piece)
                sha256.update(piece)
        self._same(entry.path, sha256.hexdigest(), entry.sha256)
        return md5.hexdigest()

    def _read(self, output: Output, most: int = _TEXT_MOST) -> bytes:
        """Return a small file, compared with its digest. Raises: ItemError."""
        if output.size > most:
            raise ItemError("this file is too large to be read", where=display(output.path), hint=_AGAIN)
        with (
            files.opened_beneath(self.ctx.source.root, output.path) as fd,
            open(fd, "rb", closefd=False) as f,
        ):
            data = f.read(most + 1)
        self._same(output.path, hashlib.sha256(data).hexdigest(), output.sha256)
        return data

    def _same(self, path: bytes, found: str, wanted: str) -> None:
        if found != wanted:
            raise ItemError(
                "this file is not what it was when its digest was taken",
                where=display(path),
                hint=f"Run the folder again: dittohead rerun {self.ctx.job_id}",
            )

    # -- what must hold ----------------------------------------------------------------------

    def _compare(self) -> None:
        name = self.options.checksums.encode()
        listing = next((output for output in self._files if output.path == name), None)
        if listing is None:
            hint = (
                ""
                if self.ctx.source.made
                else "If it lies in an archive, the step needs from: unpack. Else: "
            )
            raise self._fault(f"the volume has no {self.options.checksums}", hint + _AGAIN)
        try:
            listed = checksum_lists.parsed(self._read(listing))
        except checksum_lists.UnreadableList as error:
            raise self._fault(f"{self.options.checksums} cannot be read: {error}") from None
        if listed.algorithm != "md5":
            raise self._fault(f"{self.options.checksums} holds no MD5 digests")
        found = {output.path: str(output.detail["md5"]) for output in self._files if output.path != name}
        different = checksum_lists.compared(listed, found)
        if different:
            raise self._fault(f"the volume is not as {self.options.checksums} says: {different}")

    def _see_pages(self, volume: Volume) -> None:
        if faults := volume.faults(self.options.tolerate):
            hint = f"{_AGAIN}; or allow it with tolerate:" if volume.pages else _AGAIN
            raise self._fault(f"its pages are not whole: {'; '.join(faults)}", hint)

    def _mets(self, volume: Volume) -> tuple[str, mets.Mets]:
        """Return the METS file's name without its ending, and what it says."""
        if len(volume.mets) != 1:
            names = checksum_lists.named([output.path for output in volume.mets])
            what = f"there are {len(volume.mets)} METS files ({names})" if names else "there is no METS file"
            raise self._fault(what)
        (output,) = volume.mets
        try:
            read = mets.read(self._read(output, mets.MOST))
        except mets.UnreadableMets as error:
            raise self._fault(f"{visible(display(output.path))} cannot be read: {error}") from None
        return display(output.path).removesuffix(".xml"), read

    def _see_barcode(self, name: str, read: mets.Mets) -> str:
        """Return the volume's barcode. Raises: ItemError: the folder's is another."""
        given = _barcode(self.ctx, self.options)
        said = dict.fromkeys(one for one in (read.object_id, name) if one)
        wrong = [one for one in said if given not in _forms(one)]
        if not wrong:
            return given
        other = wrong[0]
        near = next((form for form in _forms(other) if form.casefold() == given.casefold()), "")
        where = "its METS file says" if other == read.object_id else "its METS file is called"
        if near:
            what = f'the folder\'s barcode is "{given}", and {where} "{near}": capital letters differ'
        else:
            what = f'the folder\'s barcode is "{given}", and {where} "{visible(other)}": another volume'
        target = near or _forms(other)[-1]
        hint = f"If the volume is the right one: `dittohead rename {given} {target}`. Else fetch it again"
        raise ItemError(what, where=self.ctx.name, hint=hint)

    def _fault(self, what: str, hint: str = _AGAIN) -> ItemError:
        return ItemError(what, where=self.ctx.name, hint=hint)

    # -- what is written ---------------------------------------------------------------------

    def _write(self, volume: Volume, read: mets.Mets, barcode: str) -> Iterator[Output]:
        if read.marc:
            yield self._written(f"{barcode}_marc.xml", [read.marc], {"title": read.title})
        if self.options.ocr != "none":
            yield self._written(f"{barcode}_ocr.jsonl", self._lines(volume), {"pages": len(volume.pages)})
        yield self._written(f"{barcode}_pages.csv", _table(volume), {"pages": len(volume.pages)})

    def _written(self, name: str, pieces: Iterator[bytes] | list[bytes], detail: dict[str, object]) -> Output:
        target = self.ctx.work / name
        with files.durable_file(target) as file:
            for piece in pieces:
                self._stop.check()
                file.write(piece)
        digest, size = files.sha256_file(target)
        return Output(path=os.fsencode(name), size=size, sha256=digest, detail=detail)

    def _lines(self, volume: Volume) -> Iterator[bytes]:
        for done, page in enumerate(volume.pages, 1):
            text = self._text(page)
            fields: dict[str, object] = {"page": text.page, "text": text.text}
            if not text.is_utf8:
                fields["not_utf8"] = True
            line = fields if self.options.ocr == "objects" else text.text
            yield json.dumps(line, ensure_ascii=False).encode() + b"\n"
            self.ctx.progress(done, len(volume.pages), "pages")

    def _text(self, page: VolumePage) -> _Text:
        data = b"" if page.text is None else self._read(page.text)
        try:
            return _Text(page=page.name, text=data.decode("utf-8"), is_utf8=True)
        except UnicodeDecodeError:
            assert page.text is not None  # noqa: S101  # nothing is UTF-8
            self._odd.append(page.text.path)
            return _Text(page=page.name, text=data.decode("utf-8", "replace"), is_utf8=False)

    def _tell(self, volume: Volume, read: mets.Mets, barcode: str) -> None:
        detail = f"{counted(len(self._files) - 1, 'file')} compared with {self.options.checksums}"
        self.ctx.event(Event(type=EventType.FIXITY, outcome="success", detail=detail, agent=AGENT))
        notes = [f"{counted(len(volume.pages), 'page')} of {barcode}, each with what it must have"]
        for kind, word in (("text", "text"), ("hocr", "hOCR")):
            notes += [f"{len(found):,} without {word}"] if (found := volume.lacking(kind)) else []
            notes += [f"{len(found):,} with an empty {word}"] if (found := volume.empty(kind)) else []
        if self._odd:
            names = checksum_lists.named(self._odd)
            notes.append(f"{len(self._odd):,} texts are not UTF-8 and are kept as they are ({names})")
        if volume.others:
            listing = self.options.checksums.encode()
            names = checksum_lists.named([one.path for one in volume.others if one.path != listing])
            notes += [f"further files: {names}"] if names else []
        notes += [] if read.marc else ["no MARC record in the METS file"]
        outcome = "warning" if self._odd or not read.marc else "success"
        self.ctx.event(
            Event(type=EventType.VALIDATION, outcome=outcome, detail="; ".join(notes), agent=AGENT)
        )


def _forms(name: str) -> list[str]:
    """Return what a volume may be called: as METS has it, and without a library's prefix."""
    _, mark, barcode = name.partition("_")
    return [name, barcode] if mark and barcode else [name]


def _table(volume: Volume) -> Iterator[bytes]:
    """Yield the list of pages as CSV: for each page its files with size, MD5 and SHA-256."""
    columns = ("image", "text", "hocr")
    heads = [f"{kind}{end}" for kind in columns for end in ("", "_bytes", "_md5", "_sha256")]
    yield _row(["page", *heads])
    for page in volume.pages:
        row: list[object] = [page.name]
        for kind in columns:
            output: Output | None = getattr(page, kind)
            if output is None:
                row += [""] * 4
            else:
                row += [display(output.path), output.size, output.detail["md5"], output.sha256]
        yield _row(row)


def _row(cells: list[object] | list[str]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(cells)
    return out.getvalue().encode()
