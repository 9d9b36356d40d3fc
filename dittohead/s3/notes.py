"""What a step has begun at an S3 store and not finished, noted durably before it is begun."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from dittohead.files import fsync_dir


@dataclass
class Upload:
    """A multipart upload that was begun."""

    key: str
    upload_id: str = ""  #: "" when the daemon died before it learnt it
    sha256: str = ""  #: of the file
    part_size: int = 0  #: bytes of each part but the last
    parts: dict[int, tuple[str, str]] = field(default_factory=dict)  #: number -> (ETag, checksum)


class Notes:
    """A file of JSON lines: first whose notes these are, then what was begun and what is over.

    It lies outside work/, because it must outlive a job that is cancelled. Blocking.
    """

    def __init__(self, path: Path, head: dict[str, Any]) -> None:
        self._path, self._head = path, head
        self._file: IO[bytes] | None = None
        self._opening = threading.Lock()  # large files are begun in threads, several at once
        self.open = read(path)[1]  #: key -> what an earlier try left unfinished

    def intend(self, key: str) -> None:
        """Note, durably, that an upload of this key will be begun."""
        self._line({"begin": key}, durable=True)

    def began(self, upload: Upload) -> None:
        """Note, durably, an upload's id, which alone lets it be resumed or aborted."""
        self.open[upload.key] = upload
        fields = {
            "key": upload.key,
            "upload": upload.upload_id,
            "sha256": upload.sha256,
            "part_size": upload.part_size,
        }
        self._line(fields, durable=True)

    def sent(self, upload: Upload, number: int, etag: str, checksum: str) -> None:
        """Note a part that the store has acknowledged. Not durable: the store knows it too."""
        upload.parts[number] = (etag, checksum)
        self._line({"part": number, "of": upload.key, "etag": etag, "checksum": checksum}, durable=False)

    def over(self, key: str) -> None:
        """Note that nothing unfinished is left of a key."""
        self.open.pop(key, None)
        self._line({"over": key}, durable=False)

    def close(self, *, done: bool) -> None:
        """Finish; with `done` nothing is left outside, and the file goes."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if done:
            self._path.unlink(missing_ok=True)

    def _line(self, fields: dict[str, Any], *, durable: bool) -> None:
        with self._opening:
            file, fresh = self._opened()
        file.write(json.dumps(fields).encode() + b"\n")
        if durable:
            os.fsync(file.fileno())
        if fresh:
            fsync_dir(self._path.parent)

    def _opened(self) -> tuple[IO[bytes], bool]:
        """Return the file, whose first line is the head, and whether it is new."""
        if self._file is not None:
            return self._file, False
        fresh = not self._path.exists()
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = open(self._path, "ab", buffering=0)  # noqa: SIM115  # closed by `close`
        # A line break first: the last line may be a crash's half.
        file.write((b"" if fresh else b"\n") + json.dumps(self._head).encode() + b"\n")
        self._file = file
        return file, fresh


def read(path: Path) -> tuple[dict[str, Any], dict[str, Upload]]:
    """Return (whose notes, what is unfinished by key) of a file; ({}, {}) when there is none."""
    head: dict[str, Any] = {}
    found: dict[str, Upload] = {}
    for fields in _lines(path):
        if "worker" in fields:
            head = fields
        elif "begin" in fields:
            found.setdefault(fields["begin"], Upload(fields["begin"]))
        elif "upload" in fields:
            found[fields["key"]] = Upload(
                fields["key"], fields["upload"], fields["sha256"], fields["part_size"]
            )
        elif "part" in fields and fields["of"] in found:
            found[fields["of"]].parts[fields["part"]] = (fields["etag"], fields["checksum"])
        elif "over" in fields:
            found.pop(fields["over"], None)
    return head, found


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        file = open(path, "rb")  # noqa: SIM115  # closed below
    except FileNotFoundError:
        return
    with file:
        for line in file:
            try:
                yield json.loads(line)
            except ValueError:  # a crash's half line
                continue
