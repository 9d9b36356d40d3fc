"""Secrets by file name: systemd's $CREDENTIALS_DIRECTORY, or credentials/ beside config.yaml.

That there is none, that it may not be read, and that it cannot be read just now are three things: only the
first two are anybody's mistake, and a want of descriptors for a moment signs nobody out and fails no folder.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from pathlib import Path

from dittohead.model.errors import ItemError, TransientError
from dittohead.system.machine_faults import NO_FILES

#: There is no such file.
_ABSENT = frozenset([errno.ENOENT, errno.ENOTDIR])

#: It is there, and will not be read until somebody does something.
_REFUSED = frozenset([errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL])


class UnreadableCredential(KeyError):
    """A credential that is there, and of no use."""

    def __str__(self) -> str:
        return str(self.args[0])


class _Reserve:
    """One descriptor, kept for the moment when no other is available."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fd = -1

    def fill(self) -> None:
        """Take one, where none is kept."""
        with self._lock:
            self._fill()

    def _fill(self) -> None:
        if self._fd < 0:
            with contextlib.suppress(OSError):
                self._fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, path: Path) -> bytes:
        """Return what a file holds. Raises: OSError."""
        try:
            return path.read_bytes()
        except OSError as error:
            if error.errno not in NO_FILES:
                raise
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
            try:
                return path.read_bytes()
            finally:
                self._fill()


_reserve = _Reserve()


class Credentials:
    """Reads a credential at each use, so that a changed one needs no restart."""

    def __init__(self, config: Path) -> None:
        given = os.environ.get("CREDENTIALS_DIRECTORY")
        self._places = [Path(given)] if given else []
        self._places.append(config.resolve().parent / "credentials")
        _reserve.fill()

    def __call__(self, name: str) -> str:
        """Return a credential, without its final newline.

        Raises: KeyError: there is none; Unreadable, which is one: there is, and it is of no use;
            TransientError: it cannot be read just now.
        """
        if "/" in name or name.startswith("."):
            raise KeyError(name)
        unreadable = ""
        for place in self._places:
            try:
                return _reserve.read(place / name).decode().rstrip("\r\n")
            except UnicodeDecodeError:
                unreadable = f"{place / name} holds no text in UTF-8"
            except OSError as error:
                if error.errno in _REFUSED:
                    unreadable = f"{place / name} cannot be read: {error.strerror}"
                elif error.errno not in _ABSENT:
                    raise TransientError(
                        f'the credential "{name}" cannot be read just now: {error.strerror}'
                    ) from error
        raise UnreadableCredential(unreadable) if unreadable else KeyError(name)

    def needed(self, name: str) -> str:
        """Return a credential.

        Raises: ItemError: there is none, or none that can be used, with what to do; TransientError: it
            cannot be read just now.
        """
        try:
            return self(name)
        except UnreadableCredential as error:
            raise ItemError(
                f'the credential "{name}" cannot be used: {error}',
                hint="Make it readable to the daemon's user, and to nobody else",
            ) from error
        except KeyError as error:
            raise ItemError(
                f'there is no credential "{name}"',
                hint=f"Write it into credentials/{name} beside config.yaml, or give it to the service with "
                f"LoadCredential={name}:/path",
            ) from error
