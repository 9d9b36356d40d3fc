"""Make the METS document of a package: what is known of its files, written as a stream and validated."""

from __future__ import annotations

import hashlib
import io
import json
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from dittohead.model.errors import ItemError
from dittohead.model.text import counted, display
from dittohead.system import files
from dittohead.toolkit.faulty_files import FaultyFiles
from dittohead.toolkit.images import headers
from dittohead.toolkit.images.headers import ImageHeader, Jpeg2000, Unclear
from dittohead.toolkit.sip import charset, descriptive, sorting, xml
from dittohead.toolkit.sip.content import DescriptiveMetadata, PackageRequest
from dittohead.toolkit.sip.descriptive import Section
from dittohead.toolkit.sip.mets import DEEPEST, MetsWriter, PackedFile, chunks
from dittohead.toolkit.sip.schemas import BadSchemas, Validator
from dittohead.toolkit.sip.xml import NotXml

#: Files in each part of a document that schematrons are given: their memory grows with it.
CHUNK = 100

#: Files of those that are alike, where a few stand for all.
_OF_EACH = 3

#: Findings of schemas and schematrons that are kept; the same one is kept once.
_MOST = 50

_PROGRESS = 100

#: The name of what nobody knows. Source: RFC 2046, 4.5.1.
_ANYTHING = "application/octet-stream"


@dataclass
class Findings:
    """What is wrong with a package."""

    faulty: FaultyFiles = field(default_factory=FaultyFiles)  #: files
    others: list[str] = field(default_factory=list)  #: what is not about a file
    write: Callable[[str], object] = lambda line: None  #: puts a line in the step's log

    def file(self, path: bytes, what: str) -> None:
        """Note what is wrong with a file."""
        self.faulty.add(path, what)
        self.write(f"{display(path)}: {what}")

    def other(self, what: str) -> None:
        """Note what is wrong with all of it."""
        if what in self.others:
            return
        self.write(what)
        if len(self.others) < _MOST:
            self.others.append(what)

    def __bool__(self) -> bool:
        return bool(self.faulty.count or self.others)


@dataclass(kw_only=True)
class Result:
    """What was made."""

    sha256: str = ""  #: of the METS document
    size: int = 0  #: of the METS document, bytes
    files: int = 0
    folders: int = 0  #: empty ones
    unknown: int = 0  #: files whose format is not known
    images: int = 0  #: files with MIX
    unread: int = 0  #: images whose header cannot be read
    kinds: list[str] = field(default_factory=list)  #: of the descriptive metadata
    validated: list[str] = field(default_factory=list)  #: by what

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


class MetsMaking:
    """Makes one document."""

    def __init__(self, request: PackageRequest, findings: Findings, compiled: dict[str, str]) -> None:
        self.progress: Callable[[int], None] = lambda files: None  #: told how many files are looked at
        self._request, self._findings, self._compiled = request, findings, compiled
        self._profile, self._package = request.profile, request.package
        self._known = Path(request.scratch) / "known"
        self._identifiers: set[bytes] = set()
        self.result = Result()

    def run(self) -> Result:
        """Make the document, and validate it. What is wrong is noted, all of it where that is possible.

        # 1 look at every file  2 write temp  3 validate  (the caller: 4 compare  5 publish)
        """
        known = list(self._sections())
        sections = [section for _, section in known]
        if self._profile.descriptive_required and not self._package.documents:
            self._findings.other("the profile demands descriptive metadata, and there is none")
        validator = self._validator({one.mdtype for one in sections} | {one.othermdtype for one in sections})
        if validator is not None:
            self._check(validator, known)
        self._first_pass()
        if self._findings:
            return self.result
        self._write(MetsWriter(self._profile, self._package, sections), validator)
        return self.result

    # -- descriptive metadata ----------------------------------------------------------------

    def _sections(self) -> Iterator[tuple[DescriptiveMetadata, Section]]:
        for document in self._package.documents:
            if not document.file:
                known = descriptive.mods if document.mods else descriptive.dublin_core
                section = known(document.terms)
            else:
                try:
                    section = self._given(document)
                except (NotXml, ItemError) as error:
                    what = error.what if isinstance(error, ItemError) else str(error)
                    self._findings.file(bytes.fromhex(document.file), f"as metadata: {what}")
                    continue
            self.result.kinds.append(section.othermdtype or section.mdtype)
            yield document, section

    def _given(self, document: DescriptiveMetadata) -> Section:
        with files.opened_beneath(Path(self._request.root), bytes.fromhex(document.file)) as fd:
            return descriptive.given(xml.parsed(fd), self._profile)

    def _check(self, validator: Validator, known: list[tuple[DescriptiveMetadata, Section]]) -> None:
        """Validate each document by itself: a finding then names its file."""
        for document, section in known:
            for element in section.elements if document.file else ():
                for what in validator.document(element):
                    self._findings.file(bytes.fromhex(document.file), f"as metadata: {what}")

    # -- files -------------------------------------------------------------------------------

    def _first_pass(self) -> None:
        limits, size = self._profile.limits, 0
        with open(self._known, "w", encoding="utf-8") as known:
            lines = sorting.read(Path(self._request.files))
            for number, line in enumerate(sorting.in_order(lines, self._known.parent), 1):
                path = bytes.fromhex(line["path"])
                if self._may_be_named(path):
                    known.write(json.dumps(self._known_of(path, number, line)) + "\n")
                size += line["size"]
                if limits.file_size and line["size"] > limits.file_size:
                    self._findings.file(
                        path, f"it has more bytes than the profile allows ({limits.file_size:,})"
                    )
                if number % _PROGRESS == 0:
                    self.progress(number)
        if not self.result.files:
            self._findings.other("there are no files for a package")
        for found, most, what in (
            (self.result.files, limits.files, "files"),
            (size, limits.size, "bytes"),
        ):
            if most and found > most:
                self._findings.other(f"the package has {found:,} {what}; the profile allows {most:,}")

    def _may_be_named(self, path: bytes) -> bool:
        try:
            text = path.decode("utf-8")
        except UnicodeDecodeError:
            self._findings.file(path, "its name is not UTF-8, which XML needs; rename it")
            return False
        if not xml.holds(text) or any(unicodedata.category(char) == "Cc" for char in text):
            what = "its name has control characters, which XML cannot hold or keep; rename it"
            self._findings.file(path, what)
            return False
        if path.count(b"/") > DEEPEST:
            self._findings.file(path, f"it lies more than {DEEPEST} folders deep")
            return False
        return True

    def _known_of(self, path: bytes, number: int, line: dict[str, Any]) -> dict[str, Any]:
        known: dict[str, Any] = {"path": line["path"], "number": number}
        if not line["sha256"]:
            self.result.folders += 1
            return known
        self.result.files += 1
        use = self._use(path)
        known |= {
            "size": line["size"], "sha256": line["sha256"], "created": line["at"], "use": use,
            "document": line.get("owner"), "identifier": self._identifier(path, line["identifier"]),
        }  # fmt: skip
        try:
            with files.opened_beneath(Path(self._request.root), path) as fd:
                known |= self._technical(path, fd, line.get("format"), use)
        except ItemError as error:
            self._findings.file(path, error.what)
        except OSError as error:
            self._findings.file(path, error.strerror or str(error))
        return known

    def _identifier(self, path: bytes, identifier: str) -> str:
        if not self._package.identifiers_given:  # made of the path: no two are the same
            return identifier
        digest = hashlib.blake2b(identifier.encode("utf-8", "surrogatepass"), digest_size=12).digest()
        if digest in self._identifiers:
            self._findings.file(path, "its identifier is that of another file too; change identifier:")
        if not identifier or not xml.holds(identifier):
            what = "its identifier is empty, or nothing that XML can hold; change identifier:"
            self._findings.file(path, what)
        self._identifiers.add(digest)
        return identifier

    def _use(self, path: bytes) -> str:
        name = PurePosixPath(path.decode())
        for pattern, use in self._package.use.items():
            if name.match(pattern):
                return use
        return ""

    def _technical(self, path: bytes, fd: int, told: dict[str, str] | None, use: str) -> dict[str, Any]:
        image = self._image(path, fd)
        puid, media_type, version = self._format(path, told, image, free=bool(use))
        if media_type in self._profile.formats.images and image is None and not use:
            what = f"the profile demands MIX of {media_type}, and its header cannot be read here"
            self._findings.file(path, what)
        if media_type in self._profile.formats.charset:
            media_type += self._charset(path, fd)
        self.result.images += image is not None
        return {
            "puid": puid, "media_type": media_type, "version": version,
            "image": asdict(image) if image is not None else None,
        }  # fmt: skip

    def _image(self, path: bytes, fd: int) -> ImageHeader | None:
        try:
            return headers.read(fd)
        except Unclear as error:
            self.result.unread += 1
            self._findings.write(f"{display(path)}: {error}")
            return None

    def _format(
        self, path: bytes, told: dict[str, str] | None, image: ImageHeader | None, *, free: bool
    ) -> tuple[str, str, str]:
        """Return a file's (PUID, media type, version).

        Args:
            told: what identified it; None where nothing did.
            image: what its header says.
            free: what the profile says of formats is not for it.
        """
        formats = self._profile.formats
        puid, media_type, version = "", image.media_type if image else "", ""
        if told is not None and told["puid"] != "UNKNOWN":
            puid, version = told["puid"], told["version"]
            media_type = told["mime"].partition(",")[0].strip() or media_type
        listed = self._profile.by_puid.get(puid)
        if listed is not None:
            puid, media_type = listed.written or puid, listed.name
            version = listed.version or version
            if listed.needs and not free:
                what = f"the profile demands {listed.needs} of {listed.name}, which this step does not write"
                self._findings.file(path, what)
        elif puid and formats.only_listed and not free:
            self._findings.file(
                path, f"the profile does not take its format ({puid}, {media_type or 'unknown'})"
            )
        if not puid:
            self.result.unknown += 1
            if formats.required and not free:
                self._findings.file(
                    path, "its format is not known; identify it in an earlier step (formats:)"
                )
        return puid, media_type or _ANYTHING, version or formats.unknown_version

    def _charset(self, path: bytes, fd: int) -> str:
        found = charset.of(fd) or self._package.charset
        allowed = self._profile.formats.charsets
        if not found:
            self._findings.file(path, "it is not UTF-8, and its character set is not known; set charset:")
        elif allowed and found not in allowed:
            self._findings.file(path, f"its character set {found} is not one of {', '.join(allowed)}")
        return f"; charset={found}" if found else ""

    # -- the document ------------------------------------------------------------------------

    def _files(self) -> Iterator[PackedFile]:
        for line in sorting.read(self._known):
            if line["number"] % _PROGRESS == 0:
                self.progress(line["number"])
            image = line.pop("image", None)
            yield PackedFile(**(line | {"path": bytes.fromhex(line["path"]), "image": _header(image)}))

    def _write(self, writer: MetsWriter, validator: Validator | None) -> None:
        target = Path(self._request.target)
        with open(target, "wb") as out:
            writer.write(out, self._files)
            out.flush()
            os.fsync(out.fileno())
        self.result.sha256, self.result.size = files.sha256_file(target)
        if validator is None:
            return
        with open(target, "rb") as made:
            for what in validator.by_schema(made):
                self._findings.other(f"the schemas refuse the METS document: {what}")
        self._by_rules(writer, validator)

    def _by_rules(self, writer: MetsWriter, validator: Validator) -> None:
        """Give the schematrons documents with all that is not about a file, and some files each."""
        if not validator.rules:
            return
        chosen: Iterator[PackedFile] = (one for one in self._files() if not one.is_dir)
        if self._profile.schemas.alike:
            chosen = _of_each_kind(chosen)
        for group in chunks(chosen, CHUNK):
            self.progress(group[-1].number)
            part = io.BytesIO()
            writer.write(part, lambda group=group: group)  # type: ignore[misc]
            for what in validator.by_rules(part.getvalue()):
                self._findings.other(f"the schematrons refuse the METS document: {what}")

    def _validator(self, kinds: set[str]) -> Validator | None:
        if not self._request.schemas:
            return None
        try:
            found = Validator(self._profile, Path(self._request.schemas), kinds | {"NISOIMG"}, self._compiled)
        except BadSchemas as error:
            self._findings.other(str(error))
            return None
        if found.schema is not None:
            self.result.validated.append("XML schemas")
        if found.rules:
            of = f", on {_OF_EACH} files of each kind" if self._profile.schemas.alike else ""
            self.result.validated.append(counted(len(found.rules), "schematron") + of)
        return found


def _of_each_kind(files: Iterator[PackedFile]) -> Iterator[PackedFile]:
    """Yield the first of those files that are alike in all but name, size, time and digest."""
    seen: Counter[object] = Counter()
    for one in files:
        image = one.image and replace(one.image, width=1, height=1)
        kind = (
            one.media_type,
            one.version,
            one.puid,
            one.use,
            one.document is None,
            image,
            one.path.isascii(),
        )
        seen[kind] += 1
        if seen[kind] <= _OF_EACH:
            yield one


def _header(fields: dict[str, Any] | None) -> ImageHeader | None:
    if fields is None:
        return None
    coded = fields["jpeg2000"]
    return ImageHeader(
        **(
            fields
            | {name: tuple(fields[name]) for name in ("bits", "extra")}
            | {"jpeg2000": Jpeg2000(**coded) if coded else None}
        )
    )
