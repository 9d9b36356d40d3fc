"""What a step has begun at an S3 store and not finished, noted durably before it is begun."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dittohead.toolkit import intent_log
from dittohead.toolkit.intent_log import IntentLog


@dataclass
class BegunUpload:
    """A multipart upload that was begun."""

    key: str
    upload_id: str = ""  #: "" when the daemon died before it learnt it
    sha256: str = ""  #: of the file
    part_size: int = 0  #: bytes of each part but the last
    parts: dict[int, tuple[str, str]] = field(default_factory=dict)  #: number -> (ETag, checksum)


class UploadIntentLog:
    """A file of JSON lines: first whose notes these are, then what was begun and what has ended.

    It lies outside work/, because it must outlive a job that is cancelled. Blocking.
    """

    def __init__(self, path: Path, head: dict[str, Any]) -> None:
        self._path, self._notes = path, IntentLog(path, head)
        self._turn = threading.Lock()  # large files are begun in threads, several at once
        self.open = read(path)[1]  #: key -> what an earlier try left unfinished

    def intend(self, key: str) -> None:
        """Note, durably, that an upload of this key will be begun."""
        self._line({"begin": key}, durable=True)

    def began(self, upload: BegunUpload) -> None:
        """Note, durably, an upload's id, which alone lets it be resumed or aborted."""
        self.open[upload.key] = upload
        fields = {
            "key": upload.key,
            "upload": upload.upload_id,
            "sha256": upload.sha256,
            "part_size": upload.part_size,
        }
        self._line(fields, durable=True)

    def sent(self, upload: BegunUpload, number: int, etag: str, checksum: str) -> None:
        """Note a part that the store has acknowledged. Not durable, for the store knows it as well.

        Args:
            upload: the upload it belongs to.
            number: the part's number, from 1.
            etag: as the store gave it.
            checksum: the part's checksum in base64; its MD5 where the store takes no other.
        """
        upload.parts[number] = (etag, checksum)
        self._line({"part": number, "of": upload.key, "etag": etag, "checksum": checksum}, durable=False)

    def over(self, key: str) -> None:
        """Note that nothing unfinished is left of a key."""
        self.open.pop(key, None)
        self._line({"over": key}, durable=False)

    def close(self, *, done: bool) -> None:
        """Finish; with `done` nothing is left outside, and the file goes."""
        self._notes.close()
        if done:
            self._path.unlink(missing_ok=True)

    def _line(self, fields: dict[str, Any], *, durable: bool) -> None:
        with self._turn:
            self._notes.write([fields], durable=durable)


def read(path: Path) -> tuple[dict[str, Any], dict[str, BegunUpload]]:
    """Return (whose notes, what is unfinished by key) of a file; ({}, {}) when there is none."""
    head: dict[str, Any] = {}
    found: dict[str, BegunUpload] = {}
    for fields in intent_log.read(path):
        if "worker" in fields:
            head = fields
        elif "begin" in fields:
            found.setdefault(fields["begin"], BegunUpload(fields["begin"]))
        elif "upload" in fields:
            found[fields["key"]] = BegunUpload(
                fields["key"], fields["upload"], fields["sha256"], fields["part_size"]
            )
        elif "part" in fields and fields["of"] in found:
            found[fields["of"]].parts[fields["part"]] = (fields["etag"], fields["checksum"])
        elif "over" in fields:
            found.pop(fields["over"], None)
    return head, found
