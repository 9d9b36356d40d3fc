"""What a folder has besides its files' content: extended attributes, access lists, hard links, empty folders.

Counted before a delivery, compared after it: what does not arrive is said, and how much of it.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from dittohead.model.records import Entry
from dittohead.model.text import counted

#: Access control lists, as Linux gives them out. Source: acl(5), linux/posix_acl_xattr.h.
ACLS = ("system.posix_acl_access", "system.posix_acl_default")
#: What the machine itself puts on files; it is not part of what somebody has made.
_LABELS = frozenset({"security.selinux", "security.ima", "security.evm", "security.SMACK64"})
#: Entries of an access control list that name a user or a group.
_NAMED = (2, 8)


@dataclass(frozen=True, kw_only=True)
class Keeps:
    """What a delivery is to keep besides content and times."""

    xattrs: bool = False
    acls: bool = False
    hard_links: bool = False
    private: bool = False  #: of extended attributes, those too that only root may set
    folder_times: bool = True
    empty_folders: bool = True

    def __bool__(self) -> bool:
        return self.xattrs or self.acls or self.hard_links


@dataclass
class PathCounts:
    """How many files and folders something holds for."""

    files: int = 0
    folders: int = 0

    def add(self, *, is_dir: bool) -> None:
        """Count one more."""
        if is_dir:
            self.folders += 1
        else:
            self.files += 1

    def __bool__(self) -> bool:
        return bool(self.files or self.folders)

    def __str__(self) -> str:
        parts = [counted(self.files, "file")] if self.files or not self.folders else []
        parts += [counted(self.folders, "folder")] if self.folders else []
        return " and ".join(parts)


@dataclass
class Extras:
    """What a step is given: its files, and what they have besides their content."""

    files: int = 0
    size: int = 0  #: bytes
    folders: int = 0  #: with times of their own, below the folder itself
    empty: int = 0  #: of those, without anything in them
    xattrs: PathCounts = field(default_factory=PathCounts)  #: have extended attributes of users
    private: PathCounts = field(default_factory=PathCounts)  #: have such as only root may set
    acls: PathCounts = field(default_factory=PathCounts)  #: have an access control list
    links: int = 0  #: names of files that have another name in the folder already

    def note(self, path: bytes, *, is_dir: bool) -> None:
        """Note what one file or folder has. Raises: OSError."""
        names = listed(path)
        if not names:
            return
        if any(name.startswith("user.") for name in names):
            self.xattrs.add(is_dir=is_dir)
        if any(_is_private(name) for name in names):
            self.private.add(is_dir=is_dir)
        if any(_says_something(os.getxattr(path, name, follow_symlinks=False)) for name in acls(names)):
            self.acls.add(is_dir=is_dir)

    def left(self, keeps: Keeps) -> list[str]:
        """Return what a delivery that keeps so much leaves behind, in words."""
        found = []
        if self.xattrs and not keeps.xattrs:
            found.append(f"extended attributes of {self.xattrs}")
        if self.private and not (keeps.xattrs and keeps.private):
            found.append(f"root's extended attributes of {self.private}")
        if self.acls and not keeps.acls:
            found.append(f"access control lists of {self.acls}")
        if self.links and not keeps.hard_links:
            found.append(f"{counted(self.links, 'hard link')} (a copy each)")
        if self.folders and not keeps.folder_times:
            found.append(f"times of {counted(self.folders, 'folder')}")
        if self.empty and not keeps.empty_folders:
            found.append(counted(self.empty, "empty folder"))
        return found


def survey(
    root: bytes, entries: Iterable[Entry], on_each: Callable[[Entry], None], *, attributes: bool = True
) -> Extras:
    """Count what a step is given, from its list. Blocking.

    Args:
        on_each: is given each entry, in order.
        attributes: read each file and folder itself too; what a step has made has none.

    Raises: FileNotFoundError and other OSErrors: the folder is not what its list says.
    """
    found = Extras()
    several: set[tuple[int, int]] = set()  # only of files with further names
    folders = FolderAttributes()
    if attributes:
        found.note(root, is_dir=True)
    for entry in entries:
        on_each(entry)
        if entry.is_dir:
            found.empty += 1
        else:
            found.files += 1
            found.size += entry.size
        if not attributes:
            continue
        for folder in folders.new(entry):
            found.folders += 1
            found.note(os.path.join(root, folder), is_dir=True)
        if not entry.is_dir:
            path = os.path.join(root, entry.path)
            found.note(path, is_dir=False)
            status = os.lstat(path)
            if status.st_nlink > 1:
                found.links += (status.st_dev, status.st_ino) in several
                several.add((status.st_dev, status.st_ino))
    return found


class FolderAttributes:
    """Finds the folders of a list of files, each once where the list is in the order of a walk."""

    def __init__(self) -> None:
        self._last: Sequence[bytes] = ()

    def new(self, entry: Entry) -> Iterator[bytes]:
        """Yield the folders of an entry that the one before it did not lie in, outermost first."""
        parts = entry.path.split(b"/")
        if not entry.is_dir:
            parts.pop()
        same = 0
        for mine, its in zip(parts, self._last, strict=False):
            if mine != its:
                break
            same += 1
        self._last = parts
        for end in range(same + 1, len(parts) + 1):
            yield b"/".join(parts[:end])


def listed(target: int | bytes) -> list[str]:
    """Return the names of a file's attributes; [] where the file system knows none. Raises: OSError."""
    try:
        return (
            os.listxattr(target) if isinstance(target, int) else os.listxattr(target, follow_symlinks=False)
        )
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENOSYS, errno.EACCES, errno.EPERM):
            return []
        raise


def data(names: Iterable[str], *, private: bool) -> list[str]:
    """Return those attributes that are somebody's data; `private`: with such as only root may set."""
    return [name for name in names if name.startswith("user.") or (private and _is_private(name))]


def acls(names: Iterable[str]) -> list[str]:
    """Return those attributes that are access control lists."""
    return [name for name in ACLS if name in names]


def _is_private(name: str) -> bool:
    # What the file system makes up (system.*) lies in no file.
    return name.startswith(("trusted.", "security.")) and name not in _LABELS


def _says_something(acl: bytes) -> bool:
    """Tell whether a list names anybody but the daemon, whom an inbox's default list lets in."""
    own = {(2, os.geteuid()), (8, os.getegid()), *((8, group) for group in os.getgroups())}
    entries = struct.iter_unpack("<HHI", acl[4:]) if len(acl) % 8 == 4 else ()
    named = {(tag, number) for tag, _, number in entries if tag in _NAMED}
    return not named or bool(named - own)


def lacking(source: int | bytes, target: int | bytes, *, xattrs: bool, private: bool, lists: bool) -> bool:
    """Tell whether a copy lacks an attribute of its original, or has another value of it.

    Args:
        source, target: open descriptors, or paths as bytes; a link at a path is not followed.
        xattrs: compare the extended attributes that people set (user.*).
        private: of those, the ones too that only root may set (trusted.*, security.*).
        lists: compare access control lists.
    """
    names = listed(source)
    wanted = (data(names, private=private) if xattrs else []) + (acls(names) if lists else [])
    return any(_value(source, name) != _value(target, name) for name in wanted)


def _value(target: int | bytes, name: str) -> bytes | None:
    try:
        if isinstance(target, int):
            return os.getxattr(target, name)
        return os.getxattr(target, name, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP, errno.ENOSYS, errno.EACCES, errno.EPERM):
            return None
        raise
