"""Put a package together: its files, its METS document and its signature, as files or as one archive."""

from __future__ import annotations

import contextlib
import hashlib
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal, cast

from dittohead import __version__
from dittohead.contract.worker import StepContext
from dittohead.model import units
from dittohead.model.errors import ItemError
from dittohead.model.records import Output
from dittohead.model.text import display
from dittohead.system import files
from dittohead.system.threads import Stop
from dittohead.toolkit import tar_members
from dittohead.toolkit.bagit.making import BagFolder, BagPlace, BagTar, BagZip, MadeBag, Making
from dittohead.toolkit.sip.profile import Profile

#: The name of the METS document in a package.
METS = b"mets.xml"

_FORM = Literal["folder", "tar", "zip"]


@dataclass(kw_only=True)
class PackageParts:
    """What a package is made of besides the folder's files, by their paths in it."""

    documents: dict[bytes, Path]  #: its METS document and its signature
    mets_sha256: str  #: of the METS document, as it was validated and signed
    identifier: str
    label: str = ""
    creator: str = ""
    date: str = ""  #: YYYY-MM-DD
    created: str = ""  #: CREATEDATE: when its first version was made
    is_update: bool = False
    outputs: list[Output] = field(default_factory=list)  #: what was made; filled in


class _Hashed:
    """A file that is written from its beginning to its end, and hashed meanwhile."""

    def __init__(self, file: IO[bytes]) -> None:
        self.digest = hashlib.sha256()
        self._file = file

    def write(self, data: bytes) -> int:
        """Write some bytes."""
        self.digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        """Pass on what is held back."""
        self._file.flush()


class PackageArchive:
    """Makes one package in the step's directory. Blocking."""

    def __init__(self, ctx: StepContext, profile: Profile, form: _FORM, name: str, stop: Stop) -> None:
        self._ctx, self._profile, self._form, self._stop = ctx, profile, form, stop
        self._path = ctx.work / name
        self._hint = f"Run the folder again: dittohead rerun {ctx.job_id}"
        self._members = 0
        self._listed: list[Output] = []  #: of a folder; an archive's members may be many

    def make(self, parts: PackageParts) -> None:
        """Make it, and read back what was written.

        # 1 write temp  2 fsync  3 rename  4 read back  (the engine: 5 result durable)
        Raises: ItemError: a file is not what its digest says; OSError; Stopped.
        """
        if files.sha256_file(parts.documents[METS])[0] != parts.mets_sha256:
            what = "the METS document reads back with other bytes than were written"
            raise ItemError(what, where=str(parts.documents[METS]), hint=self._hint)
        fill = self._bag if self._profile.layout == "bag" else self._files
        if self._form == "folder":
            target = self._ctx.work
            fill(BagFolder(target), parts)
            files.sync_filesystem(target)
            parts.outputs.extend(self._listed)
            for output in parts.outputs:
                self._read_back(output)
            return
        with files.durable_file(self._path) as file:
            hashed = _Hashed(file)
            with self._place(hashed) as place:
                fill(place, parts)
        digest, size = files.sha256_file(self._path)
        if digest != hashed.digest.hexdigest():
            what = "the package reads back with other bytes than were written"
            raise ItemError(what, where=str(self._path), hint=self._hint)
        detail = {
            "members": self._members, "package": parts.identifier, "created": parts.created,
            "update": parts.is_update,
        }  # fmt: skip
        name = os.fsencode(self._path.name)
        parts.outputs.append(Output(path=name, size=size, sha256=digest, detail=detail))

    @contextlib.contextmanager
    def _place(self, file: _Hashed) -> Iterator[BagPlace]:
        top = os.fsencode(self._ctx.name) if self._profile.top else b""
        if self._form == "tar":
            tar = BagTar(file, top)
            yield tar
            tar.end()
        else:
            with zipfile.ZipFile(cast(IO[bytes], file), "w", zipfile.ZIP_STORED) as archive:
                yield BagZip(archive, top)

    def _files(self, place: BagPlace, parts: PackageParts) -> None:
        for name, document in parts.documents.items():
            digest, size = files.sha256_file(document)
            with open(document, "rb") as file:
                place.put(name, size, _pieces(file))
            self._put(Output(path=name, size=size, sha256=digest))
        done = 0
        payload = self._profile.payload.encode()
        for entry in self._ctx.source.entries():
            self._stop.check()
            if entry.is_dir:
                continue
            content = tar_members.content(self._ctx.source.root, entry, self._stop.check, self._hint)
            place.put(payload + entry.path, entry.size, content)
            self._put(
                Output(path=payload + entry.path, size=entry.size, sha256=entry.sha256, source=entry.path)
            )
            done += entry.size
            self._ctx.progress(done, self._ctx.source.size, "bytes")

    def _bag(self, place: BagPlace, parts: PackageParts) -> None:
        scratch = parts.documents[METS].parent
        making = Making(self._ctx.source, ["sha256", "sha512"], scratch, self._stop)
        making.hint, making.tags, making.put = self._hint, parts.documents, self._put
        making.progress = lambda done: self._ctx.progress(done, self._ctx.source.size, "bytes")

        def info(made: MadeBag) -> list[tuple[str, str]]:
            labels = [
                ("Source-Organization", parts.creator),
                ("External-Identifier", parts.identifier),
                ("External-Description", parts.label),
                ("Bag-Software-Agent", f"dittohead {__version__}"),
                ("Bagging-Date", parts.date),
                ("Bag-Size", units.size(made.size)),
                ("Payload-Oxum", f"{made.size}.{made.files}"),
            ]
            return [(label, value) for label, value in labels if value]

        making.run(place, info)

    def _put(self, output: Output) -> None:
        self._members += 1
        if self._form == "folder":
            self._listed.append(output)

    def _read_back(self, output: Output) -> None:
        self._stop.check()
        with files.opened_beneath(self._ctx.work, output.path) as fd:
            digest, _ = files.sha256_fd(fd, files.hash_buffer(), lambda size: self._stop.check())
        if digest != output.sha256:
            what = "this file reads back with other bytes than were written"
            raise ItemError(what, where=display(output.path))


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(files.BLOCK):
        yield piece
