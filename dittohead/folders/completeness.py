"""Whether all of a folder is there, by the lists that came with it: names and sizes alone, no content.

Three promises are looked at: the manifest that our own client sends along (always), a bag's manifests and
Payload-Oxum, and lists of checksums (both where the pipeline asks for them).

Everything here blocks and runs in threads. A list of a million names takes about 200 MB while it lasts.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from dittohead.folders import manifest, sent_manifest
from dittohead.folders.sent_manifest import CONTROL, SentManifest, SomeNames, is_system_name
from dittohead.model.errors import ItemError
from dittohead.model.text import counted, display, visible
from dittohead.system import files
from dittohead.system.files import FoundName
from dittohead.system.threads import Stop
from dittohead.toolkit import checksum_lists
from dittohead.toolkit.bagit import declaration, manifests
from dittohead.toolkit.checksum_lists import UnreadableList

_DECLARATION, _DATA = b"bagit.txt", b"data/"
_INFO = (b"bag-info.txt", b"package-info.txt")  # the second until BagIt 0.95
_OXUM = re.compile(r"(\d+)\.(\d+)")

#: Directories whose times are remembered; a folder of more is looked at as a whole each time.
_MARKS = 20_000


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A directory or a list as it was: as long as it is, no name in it has come or gone."""

    path: bytes  #: in the folder; b"" for the folder itself
    mtime_ns: int
    ctime_ns: int


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What came of a look."""

    lack: str = ""  #: what is not as it was promised, in words; "" where the folder is complete
    cure: str = ""
    has_sent: bool = False  #: the manifest that was sent along is at fault
    marks: tuple[Mark, ...] = ()  #: what it rests on; none where it rests on more than names


@dataclass(kw_only=True)
class _Promise:
    """Names that are to be there, and those that nothing else may have."""

    by: str  #: what makes it, for people
    covers: Callable[[bytes], bool]  #: whether a file that it does not name is one too many
    within: bytes = b""  #: the folder of a collection that it is about; b"" for all
    names: set[bytes] = field(default_factory=set)
    surplus: SomeNames = field(default_factory=SomeNames)
    oxum: tuple[int, int] | None = None  #: bytes and files of the payload
    payload: bytes = b""  #: where that lies, with a slash at its end
    size: int = 0
    count: int = 0

    def met(self, found: FoundName) -> None:
        """Tick off a file."""
        path = found.path
        if self.oxum is not None and path.startswith(self.payload):
            self.size, self.count = self.size + found.status.st_size, self.count + 1
        if path in self.names:
            self.names.discard(path)
        elif self.covers(path):
            self.surplus.add(path)

    def said(self) -> tuple[str, bool]:
        """Return what is not as promised, "" for nothing; and whether that is by names alone."""
        missing = SomeNames()
        for path in sorted(path for path in self.names if not is_system_name(path)):
            missing.add(path)
        parts = []
        if missing.count:
            parts.append(f"{counted(missing.count, 'file')} of {self.by} not there ({missing})")
        if self.surplus.count:
            parts.append(f"{counted(self.surplus.count, 'file')} not in {self.by} ({self.surplus})")
        if not parts and self.oxum is not None and self.oxum != (self.size, self.count):
            size, count = self.oxum
            where = f" of {visible(display(self.within))}" if self.within else ""
            promised = f"Payload-Oxum{where} says {counted(count, 'file')} and {size:,} bytes"
            return f"{promised}; there are {self.count:,} and {self.size:,} bytes", False
        return "; ".join(parts), True


class _Unclear(Exception):  # an outcome, not an error
    """A list cannot be read: why, for people."""


def verdict_on(
    folder: Path, asked: Collection[str], ignore: Sequence[str], stop: Stop, *, each: bool = False
) -> Verdict:
    """See whether all that was promised of a folder is there.

    Args:
        folder: wherever it lies.
        asked: what the pipeline asks for: bag, list, or both; one of them is to be there.
        ignore: the pipeline's patterns of names that no step is given: such files are never too many.
        each: it is a collection: each folder in it is to be a bag.

    Raises: OSError; Stopped.
    """
    has_sent = sent_manifest.lies_in(folder)
    if not has_sent and not asked:
        return Verdict()
    try:
        seen = _Folder(folder, ignore, stop)
        return seen.verdict(has_sent, asked, each=each)
    except _Unclear as error:
        return Verdict(lack=str(error), cure=_cure(has_sent), has_sent=has_sent)
    except ItemError as error:  # it cannot be walked to its end
        return Verdict(lack=f"whether it is complete cannot be seen: {error}", has_sent=has_sent)


def is_unchanged(folder: Path, marks: Sequence[Mark], stop: Stop) -> bool:
    """Tell whether the directories and lists that a verdict rests on are as they were; False without any."""
    try:
        for mark in marks:
            stop.check()
            status = os.lstat(os.path.join(os.fsencode(folder), mark.path))
            if (status.st_mtime_ns, status.st_ctime_ns) != (mark.mtime_ns, mark.ctime_ns):
                return False
    except OSError:
        return False
    return bool(marks)


class _Folder:
    """One look at one folder."""

    def __init__(self, folder: Path, ignore: Sequence[str], stop: Stop) -> None:
        self._folder, self._ignore, self._stop = folder, ignore, stop
        self._marks: list[Mark] = []

    def verdict(self, has_sent: bool, asked: Collection[str], *, each: bool) -> Verdict:
        """Read what is promised, and see what is there."""
        self._mark(b"", os.lstat(self._folder))
        promises = [self._sent()] if has_sent else []
        if asked:
            promises += self._asked(asked, each=each)
        general = [promise for promise in promises if not promise.within]
        by_folder = {promise.within: promise for promise in promises if promise.within}
        for found in files.walk(self._folder, directories=True):
            self._stop.check()
            if found.kind == "directory":
                self._mark(found.path, found.status)
            elif found.kind == "file":
                for promise in general:
                    promise.met(found)
                if (own := by_folder.get(found.path.partition(b"/")[0])) is not None:
                    own.met(found)
        said = [promise.said() for promise in promises]
        lack = "; ".join(text for text, _ in said if text)
        if not lack:
            return Verdict()
        by_names = all(names for _, names in said) and len(self._marks) <= _MARKS
        at_fault = has_sent and bool(said[0][0])
        marks = tuple(self._marks) if by_names else ()
        return Verdict(
            lack=f"it is not complete: {lack}", cure=_cure(at_fault), has_sent=at_fault, marks=marks
        )

    def _mark(self, path: bytes, status: os.stat_result) -> None:
        if len(self._marks) <= _MARKS:
            self._marks.append(Mark(path=path, mtime_ns=status.st_mtime_ns, ctime_ns=status.st_ctime_ns))

    @contextlib.contextmanager
    def _opened(self, path: bytes) -> Iterator[IO[bytes]]:
        """Open a list, and remember how it was before. What is wrong with it is told with its name."""
        try:
            with (
                files.opened_beneath(self._folder, path) as fd,
                open(os.dup(fd), "rb") as file,
            ):
                self._mark(path, os.fstat(fd))
                yield file
        except FileNotFoundError:
            raise _Unclear(f"{visible(display(path))} went away while it was read") from None
        except (UnreadableList, manifests.BadLine, declaration.Malformed, ItemError) as error:
            raise _Unclear(f"{visible(display(path))} cannot be read: {error}") from error

    def _is_free(self, path: bytes) -> bool:
        """Tell whether a file may be there, whatever lists say."""
        return path in CONTROL or manifest.is_ignored(path, self._ignore) or is_system_name(path)

    # -- the manifest that was sent along ------------------------------------------------------

    def _sent(self) -> _Promise:
        promise = _Promise(by=sent_manifest.NAME, covers=lambda path: not self._is_free(path))
        with self._opened(os.fsencode(sent_manifest.NAME)) as file:
            for path, _ in SentManifest(file).lines():
                self._stop.check()
                promise.names.add(path)
        return promise

    # -- what the pipeline asks for ------------------------------------------------------------

    def _asked(self, asked: Collection[str], *, each: bool) -> list[_Promise]:
        """Return what a bag or lists promise; of a bag only the bag. Raises: _Unclear: there is none."""
        places = self._folders() if each else [b""]
        tops = [self._top_of_bag(place) for place in places] if "bag" in asked else []
        bags = [top for top in tops if top is not None]
        if bags and len(bags) == len(places):
            return [self._bag(top, place.rstrip(b"/")) for top, place in zip(bags, places, strict=True)]
        if bags and "list" not in asked:
            other = visible(display(places[tops.index(None)].rstrip(b"/")))
            raise _Unclear(f"{other} has no bagit.txt, as a bag has")
        lists = self._lists() if "list" in asked else []
        if lists:
            return [self._listed(lists)]
        wanted = {"bag": "bagit.txt, as a bag has", "list": "list of checksums"}
        raise _Unclear(f"it has no {', and no '.join(wanted[one] for one in sorted(asked))}")

    def _folders(self) -> list[bytes]:
        """Return the folders of a collection, each with a slash."""
        with os.scandir(os.fsencode(self._folder)) as entries:
            return sorted(
                one.name + b"/"
                for one in entries
                if one.is_dir(follow_symlinks=False)
                and not one.name.startswith(b".")
                and not is_system_name(one.name)
            )

    def _top_of_bag(self, place: bytes) -> bytes | None:
        """Return the directory that is the bag, with a slash: the one given, or the only one in it."""
        if self._is_there(place + _DECLARATION):
            return place
        with os.scandir(os.path.join(os.fsencode(self._folder), place)) as entries:
            tops = [one for one in entries if not (one.name in CONTROL or is_system_name(one.name))]
        if len(tops) == 1 and tops[0].is_dir(follow_symlinks=False):
            inner = place + tops[0].name + b"/"
            return inner if self._is_there(inner + _DECLARATION) else None
        return None

    def _is_there(self, path: bytes) -> bool:
        if path.startswith(b"/") or b".." in path.split(b"/") or b"\0" in path:
            return False
        return os.path.lexists(os.path.join(os.fsencode(self._folder), path))

    def _bag(self, top: bytes, within: bytes) -> _Promise:
        payload = top + _DATA
        promise = _Promise(
            by=f"the manifests of the bag {visible(display(within))}" if within else "its bag's manifests",
            covers=lambda path: path.startswith(payload) and not self._is_free(path),
            within=within,
            payload=payload,
        )
        with self._opened(top + _DECLARATION) as file:
            declared = declaration.read(file.read(declaration.LARGEST))
        with os.scandir(os.path.join(os.fsencode(self._folder), top)) as entries:
            found = [one for entry in entries if (one := manifests.manifest(entry.name)) is not None]
        known = [one for one in found if one.algorithm]
        if all(one.is_tag for one in known):
            raise _Unclear("its bag has no payload manifest")
        for one in sorted(known, key=lambda one: one.path):
            with self._opened(top + one.path) as file:
                for line in manifests.lines(file, declared.encoding, one.algorithm):
                    self._stop.check()
                    if reason := manifests.outside(line.path):
                        raise manifests.BadLine(f"line {line.number} leads out of the bag: {reason}")
                    promise.names.add(self._named(top, manifests.plain(line.path)))
        promise.oxum = self._oxum(top, declared.encoding)
        return promise

    def _named(self, top: bytes, path: bytes) -> bytes:
        """Return what a bag's path means: as it is written, or with its codes for CR, LF and % read."""
        if b"%" not in path or self._is_there(top + path):
            return top + path
        return top + manifests.decoded(path)

    def _oxum(self, top: bytes, encoding: str) -> tuple[int, int] | None:
        for name in _INFO:
            if not self._is_there(top + name):
                continue
            with self._opened(top + name) as file:
                for label, value in declaration.labels(file.read(declaration.LARGEST), encoding):
                    if label.lower() == "payload-oxum" and (said := _OXUM.fullmatch(value)):
                        return int(said[1]), int(said[2])
        return None

    def _lists(self) -> list[bytes]:
        """Return the lists of checksums in the folder, as the step `checksum` finds them."""
        found = []
        for one in files.walk(self._folder):
            self._stop.check()
            is_own = one.path in CONTROL
            if one.kind == "file" and not is_own and checksum_lists.is_called_so(one.path):
                found.append(one.path)
        return found

    def _listed(self, lists: Sequence[bytes]) -> _Promise:
        by = visible(display(lists[0])) if len(lists) == 1 else "its lists of checksums"
        known = frozenset(lists)
        promise = _Promise(by=by, covers=lambda path: path not in known and not self._is_free(path))
        for path in lists:
            at, name = path[: path.rfind(b"/") + 1], path.rpartition(b"/")[2]
            with self._opened(path) as file:
                for entry in checksum_lists.entries(file, name.rpartition(b".")[0]):
                    self._stop.check()
                    promise.names.add(self._local(at, entry.path))
        promise.names -= known  # that a list names itself, or another, says nothing
        return promise

    def _local(self, at: bytes, path: bytes) -> bytes:
        r"""Return what a list's path means; see `checksum_lists.locally`, which knows all files."""
        if not at and b"\\" not in path:
            return path
        plain = path.replace(b"\\", b"/").removeprefix(b"./")
        forms = dict.fromkeys((at + path, path, at + plain, plain))
        return next((form for form in forms if self._is_there(form)), at + path)


def _cure(has_sent: bool) -> str:
    if has_sent:
        return (
            "Send what is missing and take away what does not belong to it. To have it taken as it is, take "
            f"{sent_manifest.NAME} out of it"
        )
    return (
        "Upload what is missing and take away what does not belong to it. To have it taken as it is, leave "
        "complete: out of its pipeline"
    )
