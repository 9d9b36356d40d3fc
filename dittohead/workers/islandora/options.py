"""What an islandora step may be told."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from dittohead.contract.options import Duration
from dittohead.contract.worker import Options
from dittohead.toolkit.rest import RestSite
from dittohead.workers.islandora.vocabulary import FILE_FIELDS, USES

_PATH = re.compile(r"/[\w./~-]+")


class ByTitle(BaseModel):
    """A collection known by its title alone."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str = Field(min_length=1, description="The collection's title, to the letter.")
    find: str = Field(description="Path of a REST export View with the exposed filter `title`.")

    @field_validator("find")
    @classmethod
    def _path(cls, value: str) -> str:
        return _view(value)


class IslandoraOptions(RestSite, Options):
    """What an islandora step may be told."""

    user: str = Field(min_length=1, description="The Drupal user.")
    credential: str = Field(min_length=1, description="Name of the credential file with its password.")
    collection: str | ByTitle = Field(
        description="The collection of the object: its local identifier; `node/45`; or `{title, find}`."
    )
    find: str = Field(
        "/islandora/identifier",
        description="Path of the REST export View that finds nodes by local identifier (exposed filter "
        "`field_local_identifier`); see docs/islandora.md.",
    )
    members: str = Field(
        "",
        description="Path of a REST export View that lists a node's members (exposed filter "
        "`field_member_of`). Without it pages are found by local identifier alone.",
    )
    lists_all: bool = Field(
        False,
        description="The site's Views (`find`, `members`, `/node/N/media`) show all items: a listing of 5, "
        "10, 15... is then whole. Without it such a one may be cut, and is refused where that matters.",
    )
    record: str = Field(
        "", description="The step that describes the object; none: the pipeline's first that does."
    )
    model: Literal["auto", "paged", "image"] = Field(
        "auto", description="`paged`: a node with a node for each page; `image`: one; `auto`: by the number."
    )
    content_type: str = Field("islandora_object", description="The nodes' Drupal content type.")
    publish: bool | None = Field(
        None,
        description="Whether the public may see what is created; none: as the content type has it. The user "
        "needs `administer nodes` for it, and for `false` what docs/islandora.md names.",
    )
    use: str = Field(
        "original",
        description="What the files of `from` are there for: a word of docs/islandora.md or a term's URI.",
    )
    service: str = Field("", description="The step whose files are the pages' service files.")
    thumbnails: str = Field("", description="The step whose files are the pages' thumbnails.")
    text: str = Field("", description="The step whose files are the pages' extracted text.")
    originals: str = Field(
        "", description="Send the folder's own images too, for this use (`preservation`, say); none: not."
    )
    bundles: dict[str, str] = Field(
        default_factory=dict,
        description="Media types by extension where they are not the stock ones, as `jpg: file`.",
    )
    storage: str = Field(
        "",
        description="Where the site puts files, as a Drupal stream wrapper's URI (`private://dittohead`); "
        "none: `dittohead` where the site's own file fields are kept, or `fedora://` where it does not tell.",
    )
    any_storage: bool = Field(
        False,
        description="The site has the stream wrapper of `storage`, though its own file fields name another.",
    )
    update: Literal["nothing", "empty", "all"] = Field(
        "nothing",
        description="Fields of nodes that are there already: left alone; filled in where empty; or replaced.",
    )
    replace: bool = Field(False, description="Replace a media's file that is another; refused by default.")
    leave_out: list[str] = Field(
        default_factory=list, description="Fields that are not written, such as `field_rights`."
    )
    agents: bool = Field(
        False,
        description="Link creators and subjects to terms that exist; those that do not are named, not made.",
    )
    wait_for: Literal["nothing", "thumbnail"] = Field(
        "nothing", description="What the site is to have made before the step is done."
    )
    wait_at_most: Duration = Field(3600.0, description="How long it is waited for; then it goes on without.")
    parallel: int = Field(4, ge=1, le=32, description="Pages under way at once.")

    @field_validator("use", "originals")
    @classmethod
    def _use(cls, value: str) -> str:
        if value and value not in USES and "://" not in value:
            raise ValueError(f"one of {', '.join(USES)}, or a URI, is required")
        return value

    @field_validator("find", "members")
    @classmethod
    def _path(cls, value: str) -> str:
        return _view(value) if value else value

    @field_validator("bundles")
    @classmethod
    def _bundles(cls, value: dict[str, str]) -> dict[str, str]:
        unknown = sorted(set(value.values()) - set(FILE_FIELDS))
        if unknown:
            raise ValueError(f"{unknown[0]} is none of the media types {', '.join(FILE_FIELDS)}")
        return {ext.lower().lstrip("."): bundle for ext, bundle in value.items()}

    @field_validator("storage")
    @classmethod
    def _storage(cls, value: str) -> str:
        if (value and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[\w./-]*", value)) or ".." in value:
            raise ValueError("a stream wrapper's URI such as fedora://dittohead is required")
        return value if value.endswith("://") else value.rstrip("/")

    @model_validator(mode="after")
    def _one_use_each(self) -> IslandoraOptions:
        if not self.find:
            raise ValueError("find is required: without it an object would be made twice")
        given = [uri for _, uri in self.uses()]
        if len(set(given)) < len(given):
            raise ValueError("two kinds of files would have the same use: one would replace the other")
        return self

    def uses(self) -> list[tuple[str, str]]:
        """Return (where the files come from, URI of their use): "from", "originals" or a step's name."""
        found = [("from", use_uri(self.use))]
        for step, use in (
            (self.service, "service"),
            (self.thumbnails, "thumbnail"),
            (self.text, "extracted-text"),
        ):
            if step:
                found.append((f"step:{step}", use_uri(use)))
        if self.originals:
            found.append(("originals", use_uri(self.originals)))
        return found


def use_uri(use: str) -> str:
    """Return the URI of a use that is given as a word or as a URI."""
    return USES.get(use, use)


def _view(value: str) -> str:
    path = "/" + value.strip("/")
    if not _PATH.fullmatch(path):
        raise ValueError("a path such as /islandora/identifier is required")
    return path
