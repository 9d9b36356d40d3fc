r"""The manifest that came with a folder: taken from the uploader's disk, compared with that of the claim.

A control file at the folder's top, `dittohead-manifest-sha256.txt`: no step is given it, and it moves with
the folder. Its lines are as `sha256sum` writes them; lines with `#` in front say who took it, when and by
what, and `# files: N` how many lines there are to be.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dittohead.folders import manifest, sidecar
from dittohead.model.errors import ItemError
from dittohead.model.text import counted, display, visible
from dittohead.system import files
from dittohead.system.ignored_names import DEFAULT, ignored_names
from dittohead.system.threads import Stop
from dittohead.toolkit import checksum_lists
from dittohead.toolkit.checksum_lists import UnreadableList

#: At the top of the folder.
NAME = "dittohead-manifest-sha256.txt"

#: What no step is given, by the pattern of the pipeline's `ignore`: this one alone, and none below it.
PATTERN = f"/{NAME}"

#: Files at a folder's top that say something of it, and are none of its payload.
CONTROL = frozenset({os.fsencode(NAME), os.fsencode(sidecar.NAME)})

#: Names that a reason gives of each kind; the rest is counted.
NAMED = 20

#: A longer path is shown without its middle. Characters.
_LONG = 160

#: Comment lines that are told, and characters of each.
_COMMENTS, _COMMENT = 6, 200

_COUNT = re.compile(r"#\s*files:\s*(\d{1,12})\s*(?:,.*)?")

#: By which `dittohead-send` knows what it has begun; says nothing to people.
_IDENTITY = re.compile(r"#\s*(origin|content): [0-9a-f]{64}")


def is_system_name(path: bytes) -> bool:
    """Tell whether a file is one that systems make and remove by themselves, by the names in its path."""
    known = ignored_names((DEFAULT,))
    return any(part in known or part.startswith(b"._") for part in path.split(b"/"))


class SentManifest:
    """A manifest that came along, read line by line."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.said, self.files = _comments(file)
        file.seek(0)

    def lines(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield (path, SHA-256 as 32 bytes). Raises: UnreadableList: it is not one, or is cut off."""
        count = 0
        for entry in checksum_lists.entries(self._file):
            if entry.algorithm != "sha256":
                raise UnreadableList(f"line {entry.number} has no SHA-256")
            count += 1
            yield entry.path, bytes.fromhex(entry.digest)
        if self.files is not None and count != self.files:
            raise UnreadableList(f"it says that it has {counted(self.files, 'file')}, and has {count:,}")


def _comments(file: IO[bytes]) -> tuple[str, int | None]:
    """Return what the comment lines at its top say, and how many files it is to have."""
    said: list[str] = []
    files_said = None
    while (line := file.readline(1 << 12)).startswith(b"#"):
        text = line.decode("utf-8", "replace").strip()
        if found := _COUNT.fullmatch(text):
            files_said = int(found[1])
        elif _IDENTITY.fullmatch(text):
            continue
        elif (words := text.lstrip("#").strip()) and len(said) < _COMMENTS:
            said.append(visible(words[:_COMMENT]))
    return ", ".join(said), files_said


def lies_in(folder: Path) -> bool:
    """Tell whether one came with a folder. Blocking, but short."""
    return os.path.lexists(folder / NAME)


class SomeNames:
    """Some of many names, and how many there are."""

    def __init__(self) -> None:
        self.count = 0
        self.first: list[bytes] = []

    def add(self, path: bytes) -> None:
        """Take one down."""
        self.count += 1
        if len(self.first) < NAMED:
            self.first.append(path)

    def __str__(self) -> str:
        shown = ", ".join(_short(visible(display(path))) for path in self.first)
        return shown + (f" and {self.count - len(self.first):,} more" if self.count > len(self.first) else "")


def _short(name: str) -> str:
    """Return a path that may have thousands of characters so that twenty of them can be read."""
    return name if len(name) <= _LONG else f"{name[: _LONG // 2]}...{name[-_LONG // 2 :]}"


@dataclass(kw_only=True)
class SentDifference:
    """Where a folder is not what was sent."""

    said: str  #: what the list says of itself
    agreed: int = 0  #: files with the digest that was sent
    replaced: int = 0  #: files that somebody has replaced here since, and recorded it

    def __post_init__(self) -> None:
        self.missing, self.surplus, self.changed = SomeNames(), SomeNames(), SomeNames()

    def __bool__(self) -> bool:
        return bool(self.missing.count or self.surplus.count or self.changed.count)

    def __str__(self) -> str:
        kinds = (
            ("not there", self.missing),
            ("not in the list", self.surplus),
            ("with another digest", self.changed),
        )
        return "; ".join(f"{counted(one.count, 'file')} {what} ({one})" for what, one in kinds if one.count)


def compared(
    folder: Path,
    listed: Path,
    prefix: bytes,
    *,
    stop: Stop,
    is_replaced: Callable[[bytes, str], bool] = lambda path, sha256: False,
    note: Callable[[str, bytes], None] = lambda kind, path: None,
) -> SentDifference:
    """Compare the manifest that came along with the one of the claim; no file is read again. Blocking.

    A million names take about 250 MB while it lasts.

    Args:
        folder: where the sent manifest lies: the job's folder, or the collection that it is in.
        listed: the claim's manifest.
        prefix: of the paths that belong to the job, with a slash; b"" for all.
        is_replaced: tells whether somebody has put another file in the place of one, with this digest.
        note: is given every difference: missing, surplus or changed, and the path.

    Raises: ItemError: the sent manifest cannot be read; FileNotFoundError, OSError; Stopped.
    """
    with files.opened_beneath(folder, os.fsencode(NAME)) as fd, open(os.dup(fd), "rb") as file:
        sent = SentManifest(file)
        wanted = _wanted(sent, prefix, stop)
    found = SentDifference(said=sent.said)
    for entry in manifest.read(listed, ignored=True):
        stop.check()
        if entry.is_dir:
            continue
        digest = wanted.pop(entry.path, None)
        if digest is None:
            is_free = entry.path in CONTROL or entry.is_ignored or is_system_name(entry.path)
            if not is_free:
                found.surplus.add(entry.path)
                note("surplus", entry.path)
        elif digest.hex() == entry.sha256:
            found.agreed += 1
        elif is_replaced(entry.path, entry.sha256):
            found.replaced += 1
        else:
            found.changed.add(entry.path)
            note("changed", entry.path)
    for path in sorted(wanted):
        found.missing.add(path)
        note("missing", path)
    return found


def _wanted(sent: SentManifest, prefix: bytes, stop: Stop) -> dict[bytes, bytes]:
    wanted: dict[bytes, bytes] = {}
    try:
        for path, digest in sent.lines():
            stop.check()
            if path.startswith(prefix) and wanted.setdefault(path[len(prefix) :], digest) != digest:
                raise UnreadableList(f"it gives {visible(display(path))} two digests")
    except UnreadableList as error:
        raise unreadable(error) from error
    return wanted


def unreadable(error: UnreadableList) -> ItemError:
    """Return the error of a sent manifest that cannot be read."""
    return ItemError(
        f"the manifest that came along cannot be read: {error}",
        where=NAME,
        hint="Send the folder again, or take this file out of it; then move the folder to the inbox again",
    )


def not_as_sent(found: SentDifference, all_of_them: str) -> ItemError:
    """Return the error of a folder that is not what was sent.

    Args:
        found: what is not.
        all_of_them: the file that has every name, for people.
    """
    error = ItemError(
        f"the folder is not what its uploader sent: {found}",
        where=NAME,
        hint=f"Send it again. Every name: {all_of_them}. To have it taken as it is, take {NAME} out of it, "
        "then move the folder to the inbox again",
    )
    if not found.missing.count and not found.surplus.count:
        error.files = [display(path) for path in found.changed.first]
    return error


def succeeded(found: SentDifference) -> str:
    """Return what the receipt says of a folder that is what was sent."""
    by = f" ({found.said})" if found.said else ""
    more = f"; {counted(found.replaced, 'file')} replaced here since" if found.replaced else ""
    proved = f"{counted(found.agreed, 'file')} as on the uploader's disk, by {NAME}{by}"
    return proved + more
