"""Which files of a folder belong to which archival object, and what their components are called."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator
from pathlib import Path

from dittohead.contract import placeholders
from dittohead.model.errors import ItemError
from dittohead.model.records import Entry
from dittohead.model.text import display
from dittohead.system import files
from dittohead.system.patterns import Pattern
from dittohead.toolkit.images.names import is_junk
from dittohead.workers.archivesspace.options import COMPONENT_ID, FORMER_COMPONENT_ID, ArchivesSpaceOptions
from dittohead.workers.archivesspace.records import LONGEST_ID, alike, beyond
from dittohead.workers.archivesspace.spreadsheet import Present, UnreadableSheet, rows, shown

_AGAIN = "then move the folder to the inbox again"

#: Files named in a reason; the rest is counted.
SHOWN = 10

#: A list of files is read into memory: a larger one is none.
_LIST_MOST = 64 << 20


def text_of(path: bytes) -> str:
    """Return a path as facts keep it."""
    return path.decode("utf-8", "surrogateescape")


class Naming:
    """The names that options give to the files of a folder."""

    def __init__(self, options: ArchivesSpaceOptions, folder: str) -> None:
        self._options, self._folder = options, folder
        self._pattern = Pattern(options.pattern) if options.pattern else None

    def recorded(self, entry: Entry) -> bool:
        """Tell whether a file is to have a component."""
        name = text_of(entry.path).rpartition("/")[2]
        if entry.is_dir or is_junk(entry.path) or text_of(entry.path) == self._options.map:
            return False
        wanted = self._options.files
        return not wanted or any(fnmatch.fnmatch(name.lower(), one.lower()) for one in wanted)

    def object_id(self, identifier: str) -> str:
        """Return the digital object's id of an archival object."""
        return self._options.digital_object_id or identifier

    def component_id(self, entry: Entry, identifier: str) -> str:
        """Return what a file's component is called, which must be unique in the repository."""
        template, object_id = self._options.component_id, self.object_id(identifier)
        if template == COMPONENT_ID and _begins(self._fill(FORMER_COMPONENT_ID, entry), object_id):
            template = FORMER_COMPONENT_ID
        return self._fill(template, entry, object_id)

    def former_id(self, entry: Entry) -> str:
        """Return what earlier versions called it by default; "" where it is called as the options say."""
        default = self._options.component_id == COMPONENT_ID
        return self._fill(FORMER_COMPONENT_ID, entry) if default else ""

    def label(self, entry: Entry, identifier: str) -> str:
        """Return the label of a file's component."""
        return self._fill(self._options.label, entry, self.object_id(identifier))

    def _fill(self, template: str, entry: Entry, object_id: str = "") -> str:
        path = display(entry.path)
        folder, _, file = path.rpartition("/")
        stem, dot, ext = file.rpartition(".")
        values = {"path": path, "folder": folder, "file": file, "sha256": entry.sha256}
        values["object-id"] = object_id
        values |= {
            "stem": stem if stem else file,
            "ext": ext if stem and dot else "",
            "size": str(entry.size),
        }
        return placeholders.fill(template, values)

    def objects(self, root: Path, entries: Iterable[Entry]) -> dict[str, tuple[str, ...] | None]:
        """Return the identifiers the folder needs, each with its files; None: all of them. Blocking.

        Raises: ItemError: naming each file that belongs to no object, and each that is listed and missing.
        """
        if self._options.map:
            return self._listed(root, entries)
        if self._pattern is None:
            return {self._options.find or self._folder: None}
        found: dict[str, list[str]] = {}
        strange = []
        for entry in entries:
            if not self.recorded(entry):
                continue
            match = self._pattern.fullmatch(text_of(entry.path))
            # What is not printable is not an identifier, and bytes that are not UTF-8 cannot be asked for.
            if match is None or not match["object"] or not match["object"].isprintable():
                strange.append(display(entry.path))
            else:
                found.setdefault(match["object"], []).append(text_of(entry.path))
        if strange:
            raise ItemError(
                f"{_count(strange, 'file does', 'files do')} not fit the pattern {self._options.pattern}: "
                f"{some_of(strange)}",
                hint=f"Correct the names or the pattern, {_AGAIN}",
            )
        return {key: tuple(value) for key, value in found.items()}

    def _listed(self, root: Path, entries: Iterable[Entry]) -> dict[str, tuple[str, ...] | None]:
        listed = self._read(root)
        names = {text_of(entry.path) for entry in entries if self.recorded(entry)}
        present = Present(names)
        found: dict[str, list[str]] = {}
        meant: dict[str, str] = {}
        missing = []
        for name, identifier in listed.items():
            file = present.meant(name)
            if file is None:
                missing.append(present.missing(name))
            elif meant.setdefault(file, name) != name:
                raise self._wrong(f"it lists {file} twice, in two forms")
            else:
                found.setdefault(identifier, []).append(file)
        unlisted = sorted(map(shown, names - meant.keys()))
        problems = []
        if missing:
            problems.append(f"it lists {some_of(missing)}, which the folder does not hold")
        if unlisted:
            problems.append(f"it does not list {some_of(unlisted)}")
        if problems:
            hint = f"Correct {self._options.map} or the folder, {_AGAIN}"
            raise ItemError("; ".join(problems), where=self._options.map, hint=hint)
        return {key: tuple(value) for key, value in found.items()}

    def _read(self, root: Path) -> dict[str, str]:
        """Return the identifier of each file that the list names."""
        column = self._options.by
        listed: dict[str, str] = {}
        for number, row in self._rows(root):
            name, identifier = row["file"].strip(), row[column].strip()
            if not name and not identifier:
                continue
            if not name or not identifier:
                raise self._wrong(f"line {number} lacks its {'file' if not name else column}")
            if listed.setdefault(name, identifier) != identifier:
                raise self._wrong(f"line {number} gives {name} to a second object")
        if not listed:
            raise self._wrong(f"it lists nothing; it needs the columns file and {column}")
        return listed

    def _rows(self, root: Path) -> Iterator[tuple[int, dict[str, str]]]:
        """Yield each row with the line it begins in, counted from 1."""
        try:
            with (
                files.opened_beneath(root, self._options.map.encode()) as fd,
                open(fd, "rb", closefd=False) as f,
            ):
                data = f.read(_LIST_MOST + 1)
        except OSError as error:
            raise self._wrong(f"it cannot be read ({error.strerror})") from None
        if len(data) > _LIST_MOST:
            raise self._wrong("it is larger than 64 MiB")
        try:
            yield from rows(data, ("file", self._options.by))
        except UnreadableSheet as error:
            raise self._wrong(str(error)) from None

    def _wrong(self, what: str) -> ItemError:
        hint = f"Correct it, {_AGAIN}"
        return ItemError(f"the list of objects: {what}", where=self._options.map, hint=hint)

    def check(
        self, entries: Iterable[Entry], objects: dict[str, tuple[str, ...] | None]
    ) -> dict[str, dict[str, str]]:
        """See that every file has a component of its own, with an id and a label that fit.

        Returns: by identifier of the object the ids, each with its file.

        Raises: ItemError.
        """
        of = {name: key for key, names in objects.items() for name in names or ()}
        one = next(iter(objects)) if list(objects.values()) == [None] else ""
        seen: dict[str, str] = {}
        ids: dict[str, dict[str, str]] = {}
        problems = []
        for entry in entries:
            if not self.recorded(entry):
                continue
            key, path = of.get(text_of(entry.path), one), display(entry.path)
            id_, label = self.component_id(entry, key), self.label(entry, key)
            if wrong := _unfit(id_, label):
                problems.append(f"{path} ({wrong})")
                continue
            # Unique in the whole repository, and the database tells neither capitals nor accents apart.
            other = seen.setdefault(alike(id_), path)
            if other != path:
                problems.append(f"{path} and {other} ({id_})")
            ids.setdefault(key, {})[id_] = text_of(entry.path)
        if problems:
            raise ItemError(
                f"components would not have an id of their own: {some_of(problems)}",
                hint="Use {object-id} with {file} or {path} in component_id, or say which files are recorded "
                f"with files:, {_AGAIN}",
            )
        return ids


def _unfit(id_: str, label: str) -> str:
    """Return what keeps an id or a label from being recorded; "" for nothing."""
    if not 0 < len(id_) <= LONGEST_ID or not 0 < len(label) <= LONGEST_ID:
        return f"its id or label has not 1 to {LONGEST_ID} characters"
    if strange := beyond(id_ + label):
        return f"ArchivesSpace's database cannot hold {strange}: rename it, or keep its name out of both"
    return ""


def _begins(stem: str, object_id: str) -> bool:
    """Tell whether a file's stem says by itself which object it belongs to: "X_1_0001" of "X_1"."""
    rest = stem[len(object_id) :]
    return stem.startswith(object_id) and not rest[:1].isalnum()


def some_of(names: list[str]) -> str:
    """Return the first of some names for people, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _count(names: list[str], one: str, many: str) -> str:
    return f"{len(names)} {one if len(names) == 1 else many}"
