"""What is said about each object in a bucket: its key, type, metadata, tags, encryption and lock."""

from __future__ import annotations

import mimetypes
import os
from array import array
from collections.abc import Callable, Iterable
from datetime import timedelta
from itertools import pairwise
from typing import Any, Final, Literal
from urllib.parse import quote, urlencode

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from dittohead.contract import placeholders
from dittohead.contract.options import Duration
from dittohead.model.errors import ItemError
from dittohead.model.records import Entry
from dittohead.model.text import display, utcnow
from dittohead.system.threads import Stop
from dittohead.toolkit.result_cache import name_digest

_KEY_MAX: Final = 1024  #: bytes. Source: Amazon S3 User Guide, "Naming Amazon S3 objects".

#: Types that Python's own table lacks.
_TYPES = {".jp2": "image/jp2", ".jph": "image/jph", ".j2k": "image/j2c", ".jxl": "image/jxl"}
_TYPES |= {".avif": "image/avif", ".heic": "image/heic", ".heif": "image/heif", ".webp": "image/webp"}
_TYPES |= {".md5": "text/plain", ".sha256": "text/plain", ".jsonl": "application/x-ndjson"}
_UNKNOWN_TYPE = "application/octet-stream"

#: Headers are ASCII: what is not is percent-encoded in metadata, and so is the percent sign itself.
_PRINTABLE = " !\"#$&'()*+,/:;<=>?@[\\]^`{|}"


class ObjectLock(BaseModel):
    """How long objects cannot be removed or replaced."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["governance", "compliance"] | None = Field(
        None, description="`governance` lets privileged users remove it earlier, `compliance` nobody."
    )
    retain: Duration | None = Field(None, gt=0, description="For how long, from the upload on.")
    legal_hold: bool = Field(False, description="Until the hold is taken away.")

    @model_validator(mode="after")
    def _both(self) -> ObjectLock:
        if (self.mode is None) != (self.retain is None):
            raise ValueError("mode and retain belong together")
        return self


class Encryption(BaseModel):
    """How the store encrypts objects at rest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["AES256", "aws:kms", "aws:kms:dsse"] = Field("AES256", description="By whose keys.")
    key: str | None = Field(None, description="Id of a KMS key; by default the store's own.")

    @model_validator(mode="after")
    def _has_key(self) -> Encryption:
        if self.key is not None and self.type == "AES256":
            raise ValueError("a key goes with type aws:kms")
        return self


class ObjectOptions(BaseModel):
    """The options of a step that say what its objects are like."""

    prefix: str = Field("", description="What keys begin with, up to and with a slash; the path follows.")
    key: str | None = Field(
        None,
        description="Instead of `prefix`: the key of each file, made from `{path}`, `{folder}`, `{file}`, "
        "`{stem}`, `{ext}`, `{sha256}`, `{size}` and what can stand in any option.",
    )
    storage_class: str | None = Field(None, description="Such as `STANDARD_IA` or `DEEP_ARCHIVE`.")
    content_types: dict[str, str] = Field(
        default_factory=dict, description='Content types by ending, such as `{".tif": image/tiff}`.'
    )
    cache_control: str | None = Field(None, description="The Cache-Control that objects are served with.")
    metadata: dict[str, str] = Field(
        default_factory=dict,
        description="Metadata of each object; the placeholders of `key` can be used, such as "
        "`{sha256: '{sha256}'}`. What is not ASCII is percent-encoded.",
    )
    tags: dict[str, str] = Field(
        default_factory=dict, max_length=10, description="Tags of each object, ten at most."
    )
    encryption: Encryption | None = Field(None, description="Encryption at rest; by default the bucket's.")
    object_lock: ObjectLock | None = Field(None, description="Retention and legal hold of each object.")

    @field_validator("prefix")
    @classmethod
    def _slash(cls, value: str) -> str:
        if value and not value.endswith("/"):
            raise ValueError('a prefix ends with "/"; for keys of another shape there is key')
        return value

    @model_validator(mode="after")
    def _one(self) -> ObjectOptions:
        if self.key is not None and self.prefix:
            raise ValueError("prefix and key exclude each other")
        return self

    def key_of(self, entry: Entry) -> str:
        """Return a file's key; a name that is not UTF-8 is percent-encoded, since keys are UTF-8."""
        path = display(entry.path)
        if self.key is None:
            return self.prefix + path
        values = _values(entry, path)
        # A file that lies in no folder has no empty one in its key.
        template = self.key if values["folder"] else self.key.replace("{folder}/", "")
        return placeholders.fill(template, values)

    @property
    def place(self) -> str:
        """What all keys begin with, up to and with a slash: nowhere else need one be allowed to write."""
        if self.key is None:
            return self.prefix
        folder, slash, _ = self.key.partition("{")[0].rpartition("/")
        return folder + slash

    def check_keys(self, entries: Callable[[], Iterable[Entry]], stop: Stop) -> None:
        """See that every file has a key of its own that a store takes, before anything is sent.

        Knows keys by eight bytes each. Raises: ItemError.
        """
        digests = array("Q")
        for entry in entries():
            stop.check()
            if entry.is_dir:
                continue
            key = self.key_of(entry).encode("utf-8")
            if not 0 < len(key) <= _KEY_MAX:
                raise ItemError(
                    f"the key of {display(entry.path)} would have {len(key)} bytes; S3 wants 1 to {_KEY_MAX}",
                    hint="Change its name, the prefix or key:, then move the folder to the inbox again",
                )
            digests.append(name_digest(key))
        twice = next((one for one, two in pairwise(sorted(digests)) if one == two), None)
        if twice is None:
            return
        files = (entry for entry in entries() if not entry.is_dir)
        named = [entry for entry in files if name_digest(self.key_of(entry).encode("utf-8")) == twice]
        paths = " and ".join(display(entry.path) for entry in named[:2])
        raise ItemError(
            f"two files would get the same key {self.key_of(named[0])}: {paths}",
            hint="Use {path}, or {folder} and {ext}, in key:, so that each file has its own, then move the "
            "folder to the inbox again",
        )

    def parameters(self, entry: Entry) -> dict[str, Any]:
        """Return what PutObject and CreateMultipartUpload are told about one file."""
        path = display(entry.path)
        found: dict[str, Any] = {"ContentType": self._content_type(path)}
        if self.storage_class:
            found["StorageClass"] = self.storage_class
        if self.cache_control:
            found["CacheControl"] = self.cache_control
        if self.metadata:
            values = _values(entry, path)
            found["Metadata"] = {
                name: quote(placeholders.fill(text, values), safe=_PRINTABLE)
                for name, text in self.metadata.items()
            }
        if self.tags:
            found["Tagging"] = urlencode(self.tags)
        return found | _encryption(self.encryption) | _lock(self.object_lock)

    def _content_type(self, path: str) -> str:
        ending = os.path.splitext(path)[1].lower()
        own = {name.lower(): kind for name, kind in self.content_types.items()}
        return own.get(ending) or _TYPES.get(ending) or mimetypes.guess_type(f"x{ending}")[0] or _UNKNOWN_TYPE


def _values(entry: Entry, path: str) -> dict[str, str]:
    return placeholders.path_values(path) | {"sha256": entry.sha256, "size": str(entry.size)}


def _encryption(encryption: Encryption | None) -> dict[str, str]:
    if encryption is None:
        return {}
    key = {"SSEKMSKeyId": encryption.key} if encryption.key else {}
    return {"ServerSideEncryption": encryption.type, **key}


def _lock(lock: ObjectLock | None) -> dict[str, Any]:
    if lock is None:
        return {}
    found: dict[str, Any] = {"ObjectLockLegalHoldStatus": "ON"} if lock.legal_hold else {}
    if lock.mode is not None and lock.retain is not None:
        found["ObjectLockMode"] = lock.mode.upper()
        found["ObjectLockRetainUntilDate"] = utcnow() + timedelta(seconds=lock.retain)
    return found
