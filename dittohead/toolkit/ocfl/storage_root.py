"""A storage root: opened, made, and held for one object at a time. Source: OCFL 1.1, 4."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dittohead.system import files
from dittohead.toolkit.ocfl import check, inventory, layouts
from dittohead.toolkit.ocfl.layouts import StorageLayout

#: Where versions are made before they are renamed into place, and where locks lie: in `extensions/` of the
#: root, as that is the only directory on the same volume which is not for objects. There only while somebody
#: writes, or after a crash.
WORK = "dittohead-work"

_DECLARATION = f"0=ocfl_{inventory.SPEC}"
_LAYOUT = "ocfl_layout.json"
_EXTENSIONS = "extensions"
_MODE = 0o644  # of files of the root, which are for all to read

#: Seconds between two tries for a lock that is taken.
_AGAIN_S = 0.02


class NotARoot(Exception):
    """A directory is not a storage root that can be written; `hint` says what to do."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.hint = hint


@dataclass(frozen=True)
class StorageRoot:
    """A storage root whose layout is known."""

    path: bytes
    layout: StorageLayout

    def object(self, id_: str) -> bytes:
        """Return the path of an object's directory. Raises: NoPlace."""
        return os.path.join(self.path, self.layout.path(id_).encode())


def opened(path: bytes, *, spec: str = inventory.SPEC) -> StorageRoot | None:
    """Open a storage root. Blocking.

    Args:
        path: its directory.
        spec: the only version of the specification that is taken; "" for any that can be read.

    Returns: None where the directory is empty, or holds the beginning of a root and nothing else.
    Raises: NotARoot; FileNotFoundError, OSError.
    """
    found = os.listdir(path)
    names = [os.fsdecode(name) for name in found]
    declared = check.declaration(names)
    if not declared:
        if check.is_object(names):
            raise NotARoot("this is an OCFL object, not a storage root", "Give the root that it lies in")
        others = sorted(name for name in names if name not in (_LAYOUT, _EXTENSIONS) and name[0] != ".")
        if not others:
            return None
        some = ", ".join(others[:3])
        raise NotARoot(
            f"this is not an OCFL storage root, and not empty: it holds {some}",
            "Check the path; or give an empty directory, which becomes a root",
        )
    if len(declared) > 1 or (spec and declared[0] != f"0=ocfl_{spec}"):
        raise NotARoot(
            f"this storage root declares itself by {', '.join(declared)}, and only {_DECLARATION} is written",
            "Upgrade the root to OCFL 1.1 (https://ocfl.io/1.1/implementation-notes/), or give another",
        )
    return StorageRoot(path, _layout(path))


def _layout(path: bytes) -> StorageLayout:
    try:
        return check.read_layout(path)
    except FileNotFoundError as error:
        hint = (
            f"Write {_LAYOUT} into it, which names its layout; known are {', '.join(layouts.NAMES.values())}"
        )
        raise NotARoot(
            f"this storage root does not say which layout it has: {_LAYOUT} is not there", hint
        ) from error
    except layouts.BadLayout as error:
        raise NotARoot(
            f"the layout of this storage root cannot be used: {error}",
            "Use a root with a known layout",
        ) from error


def made(path: bytes, layout: StorageLayout, check_stop: Callable[[], None]) -> StorageRoot:
    """Make a storage root of an empty directory, or finish one that was begun. Blocking.

    # 1 the layout's parameters  2 the layout's name  3 the declaration: only now it is a root; each durable

    Args:
        path: the directory.
        layout: the layout of a new root; one whose layout is written has that.
        check_stop: called while another's work is waited for; may raise to stop.

    Raises: NotARoot, OSError.
    """
    with hold(path, "root", check_stop):
        found = opened(path)  # another may have been faster
        if found is not None:
            return found
        root = Path(os.fsdecode(path))
        if not (root / _LAYOUT).exists():
            config = root / _EXTENSIONS / layout.name / "config.json"
            config.parent.mkdir(exist_ok=True)
            files.write_durably(config, _json(layout.config()), _MODE)
            files.fsync_dir(config.parent.parent)
            said = {"extension": layout.name, "description": layouts.DESCRIPTIONS[layout.number]}
            files.write_durably(root / _LAYOUT, _json(said), _MODE)
        chosen = _layout(path)
        files.write_durably(root / _DECLARATION, f"ocfl_{inventory.SPEC}\n".encode(), _MODE)
        files.remove_unfinished(root)
        return StorageRoot(path, chosen)


def _json(value: object) -> bytes:
    return json.dumps(value, indent=2, sort_keys=True).encode() + b"\n"


# -- one writer at a time --------------------------------------------------------------------


class Hold:
    """The right to write one object. It ends with `close`, or with the process."""

    def __init__(self, root: bytes, key: str, fd: int) -> None:
        self._root, self._key, self._fd = root, key, fd
        self.build = os.path.join(_work(root), f"{key}.new".encode())  #: a directory for what is being made

    def close(self) -> None:
        """Remove what was being made, and let go."""
        if self._fd < 0:
            return
        try:
            _remove(self.build)
            with contextlib.suppress(OSError):
                os.unlink(_lock(self._root, self._key))
        finally:
            os.close(self._fd)
            self._fd = -1
        for folder in (_work(self._root), os.path.join(self._root, _EXTENSIONS.encode())):
            with contextlib.suppress(OSError):  # others are writing, or there are other extensions
                os.rmdir(folder)


def key_of(id_: str) -> str:
    """Return the name under which an object is locked: no name on disk, whatever the id holds."""
    return hashlib.sha256(id_.encode()).hexdigest()[:40]


@contextlib.contextmanager
def hold(root: bytes, key: str, check_stop: Callable[[], None]) -> Iterator[Hold]:
    """Hold the right to write an object while a block runs; see `taken`."""
    held = taken(root, key, check_stop)
    try:
        yield held
    finally:
        held.close()


def taken(root: bytes, key: str, check_stop: Callable[[], None]) -> Hold:
    """Take the right to write an object, of all processes of this host; wait for it. Blocking.

    Args:
        root: the storage root.
        key: from `key_of`.
        check_stop: called while another holds it; may raise to stop.

    Raises: OSError.
    """
    while True:
        fd = _locked(root, key)
        if fd is not None:
            held = Hold(root, key, fd)
            _sweep(root, key)
            return held
        check_stop()
        time.sleep(_AGAIN_S)


def _work(root: bytes) -> bytes:
    return os.path.join(root, _EXTENSIONS.encode(), WORK.encode())


def _lock(root: bytes, key: str) -> bytes:
    return os.path.join(_work(root), f"{key}.lock".encode())


def _locked(root: bytes, key: str) -> int | None:
    """Return the lock's file, open and locked; None while another has it.

    Who lets go removes the file: so it must still be there under its name once it is locked.
    """
    path = _lock(root, key)
    for folder in (os.path.dirname(_work(root)), _work(root)):
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
    except FileNotFoundError:  # the directory was removed by one who has ended
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(fd), os.lstat(path)):
            return fd
    except (FileNotFoundError, BlockingIOError):  # it was let go in between; another has it
        pass
    except OSError:
        os.close(fd)
        raise
    os.close(fd)
    return None


def _sweep(root: bytes, own: str) -> None:
    """Remove what killed writers have left, whose locks nobody holds any more."""
    with os.scandir(_work(root)) as entries:
        keys = {os.fsdecode(entry.name).partition(".")[0] for entry in entries} - {own}
    for key in sorted(keys):
        fd = _locked(root, key)
        if fd is not None:
            Hold(root, key, fd).close()


def _remove(path: bytes) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)
