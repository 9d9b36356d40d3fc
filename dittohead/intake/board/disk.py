"""The directories of a board: made, read and written. What others put there is read by descriptor alone."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from dittohead.folders.stations import Stations
from dittohead.model.errors import DittoheadError
from dittohead.model.states import Station
from dittohead.system import files, log

#: The directory under the root.
NAME = "board"

#: How a token's file ends, and a reason's.
TOKEN, REASON = ".json", ".reason.txt"

#: Names of one stage that are read; others have to wait.
_NAMES = 100_000

#: Bytes of a token, and of a file of keys.
MOST_TOKEN, MOST_LIST = 1 << 16, 1 << 22

#: A key's name in a directory is no longer than this, so that a reason fits beside it. Bytes.
_LONGEST = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """One name in a stage."""

    stage: str
    name: str  #: as os.fsdecode gives it
    status: os.stat_result  #: lstat

    @property
    def mark(self) -> str:
        """What tells this file from every other, also from a later one of its name."""
        now = self.status
        return f"{self.stage}/{self.name}:{now.st_ino}:{now.st_mtime_ns}:{now.st_ctime_ns}:{now.st_size}"

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.status.st_mode)

    @property
    def is_ours(self) -> bool:
        """Whether the daemon's own user owns it."""
        return self.status.st_uid == os.geteuid()


def name_of(key: str) -> str:
    """Return what a key's token is called, without its ending."""
    if "/" in key or key.startswith(".") or not key.isprintable() or len(key.encode()) > _LONGEST:
        # Not all of a long one fits; so that two never meet, the digest decides.
        safe = quote(key, safe="").replace(".", "%2E")
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        return safe if len(safe) <= _LONGEST else f"{safe[:150]}-{digest}"
    return key


class BoardDisk:
    """The board of one source."""

    def __init__(self, stations: Stations, source: str) -> None:
        self._stations = stations
        self.path = stations.root / NAME / source
        self._said: set[str] = set()

    def prepare(self, stages: Collection[str]) -> None:
        """Make what is missing of the directories; each stage has the rights of the inbox.

        Only the daemon's user may put directories beside the stages.
        Raises: OSError; DittoheadError: something else lies there.
        """
        for path in (self.path.parent, self.path):
            if not os.path.lexists(path):
                path.mkdir()
                path.chmod(0o755)
            _must_be_ours(path)
        inbox = os.stat(self._stations.path(Station.INBOX))
        for stage in stages:
            path = self.path / stage
            if os.path.lexists(path):
                _must_be_ours(path)
                continue
            path.mkdir()
            with contextlib.suppress(OSError):  # not a member of that group
                os.chown(path, -1, inbox.st_gid)
            path.chmod(stat.S_IMODE(inbox.st_mode))

    def stages(self) -> list[str]:
        """Return the directories that are there and ours."""
        found = []
        with os.scandir(self.path) as listed:
            for entry in listed:
                mine = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(mine.st_mode) and mine.st_uid == os.geteuid():
                    found.append(entry.name)
        return sorted(found)

    def seen(self) -> Iterator[Seen]:
        """Yield what lies in the stages; names with a dot in front are uploads, and are not read."""
        for stage in self.stages():
            with os.scandir(self.path / stage) as listed:
                for count, entry in enumerate(listed):
                    if count >= _NAMES:
                        self._say_once(stage)
                        break
                    if entry.name.startswith("."):
                        continue
                    with contextlib.suppress(FileNotFoundError):
                        status = entry.stat(follow_symlinks=False)
                        yield Seen(stage=stage, name=entry.name, status=status)

    def _say_once(self, stage: str) -> None:
        if stage not in self._said:
            self._said.add(stage)
            why = f"more than {_NAMES:,} names lie in {stage}/; the others are not looked at"
            log.get().warning(log.BOARD_REFUSED, source=self.path.name, token=f"{stage}/", reason=why)

    def directory(self, stage: str) -> Path:
        """Return where a stage is."""
        return self.path / stage

    def read(self, seen: Seen, most: int) -> bytes:
        """Return what a file holds, if it is still the one that was seen.

        Raises: ItemError: it is not a regular file, or may not be read; ValueError: it is another now, or has
        more than `most` bytes; OSError.
        """
        fd, status = files.open_regular(os.fsencode(self.path / seen.stage / seen.name))
        with os.fdopen(fd, "rb") as file:
            if (status.st_ino, status.st_uid) != (seen.status.st_ino, seen.status.st_uid):
                raise ValueError("it was replaced while it was read; it is read again")
            data = file.read(most + 1)
        if len(data) > most:
            raise ValueError(f"it has more than {most:,} bytes")
        return data

    def write(self, stage: str, name: str, text: str) -> os.stat_result:
        """Write a file of ours, whole or not at all; return its lstat. The store is the truth: no fsync."""
        path = self.path / stage / name
        files.replace_file(path, text.encode("utf-8", "replace"), 0o644)
        return os.lstat(path)

    def remove(self, seen: Seen) -> bool:
        """Remove a file if it is still the one that was seen; tell whether it is gone."""
        path = self.path / seen.stage / seen.name
        try:
            now = os.lstat(path)
            if Seen(stage=seen.stage, name=seen.name, status=now).mark != seen.mark:
                return False
            os.unlink(path)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    def tidy(self, stages: Collection[str]) -> None:
        """Remove what a crash left of files that were being written, and empty stages that are none now."""
        for stage in self.stages():
            files.remove_unfinished(self.path / stage)
            if stage not in stages:
                with contextlib.suppress(OSError):
                    os.rmdir(self.path / stage)


def _must_be_ours(path: Path) -> None:
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise DittoheadError(
            "the board cannot be kept: this is not a directory of the daemon's user",
            where=str(path),
            hint="Move it away; it is made again",
        )
