"""What an ocfl step may be told."""

from __future__ import annotations

import os
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from dittohead.contract.options import Duration
from dittohead.contract.worker import Options
from dittohead.toolkit.ocfl import layouts
from dittohead.toolkit.ocfl.layouts import StorageLayout


class UserOptions(Options):
    """Who is named as the maker of a version."""

    name: str = Field(min_length=1, description="A person's or a service's name.")
    address: str | None = Field(
        None, description="A URI, such as `mailto:archive@example.org`; the specification asks for one."
    )


class OcflOptions(Options):
    """What an ocfl step may be told."""

    root: str = Field(
        description="Absolute path of the storage root. An empty directory becomes one; a directory that is "
        "not there is not made: the target is paused until it is."
    )
    id: str = Field(
        "{name}",
        min_length=1,
        description="The object's id, best a URI such as `urn:example:{name}`. A folder whose id is there "
        "already becomes the next version of that object.",
    )
    layout: str = Field(
        "0003-hash-and-id-n-tuple-storage-layout",
        description="The layout of a new root, by name or number: 0002, 0003, 0004, 0006 or 0007. A root "
        "that is there keeps its own.",
    )
    layout_config: dict[str, Any] = Field(
        default_factory=dict,
        description="Parameters of the layout of a new root, such as `{tupleSize: 2, numberOfTuples: 4}`.",
    )
    digest: Literal["sha512", "sha256"] = Field(
        "sha512", description="The digest of a new object; one that is there keeps its own."
    )
    fixity: list[Literal["md5", "sha1", "sha256", "sha512", "blake2b-512"]] = Field(
        default_factory=list,
        description="Further digests of new files, kept in the inventory's fixity block. They cost no "
        "further read.",
    )
    message: str = Field("", description="Why the version was made; otherwise dittohead and the job's id.")
    user: UserOptions = Field(
        default_factory=lambda: UserOptions(name="dittohead", address=None),
        description="Who made the version.",
    )
    mount: str | None = Field(
        None, description="A path that must be a mount point; otherwise the target is taken to be down."
    )
    timeout: Duration = Field(
        60.0, description="How long the file system may not answer before it is an error."
    )

    @field_validator("root")
    @classmethod
    def _root(cls, value: str) -> str:
        if not value.startswith("/"):
            raise ValueError("an absolute path is required")
        return os.path.normpath(value)

    @model_validator(mode="after")
    def _layout(self) -> OcflOptions:
        try:
            self.of_new_root()
        except layouts.BadLayout as error:
            raise ValueError(str(error)) from error
        return self

    def of_new_root(self) -> StorageLayout:
        """Return the layout that a new root gets. Raises: BadLayout."""
        return layouts.layout(self.layout, self.layout_config)
