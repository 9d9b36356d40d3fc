"""What an archivesspace step may be told."""

from __future__ import annotations

import re
from typing import Literal, get_args

from pydantic import Field, field_validator, model_validator

from dittohead.contract.worker import Options
from dittohead.system.patterns import Pattern
from dittohead.toolkit.rest import RestSite

#: What components are called, and were in earlier versions.
COMPONENT_ID = "{object-id}_{stem}"
FORMER_COMPONENT_ID = "{stem}"

#: What of a description can be copied, and what is with `copy_description: true`: extents are of what lies
#: on the shelf.
Part = Literal["dates", "agents", "subjects", "languages", "notes", "restrictions", "extents"]
COPIED: tuple[Part, ...] = get_args(Part)
USUAL = frozenset(COPIED) - {"extents"}


class ArchivesSpaceOptions(RestSite, Options):
    """What an archivesspace step may be told."""

    user: str = Field(description="Name of the user that dittohead is in ArchivesSpace.")
    credential: str = Field(description="Name of the credential file that holds the user's password.")
    repository: int = Field(ge=1, description="The repository's number, as in `/repositories/2`.")
    staff_url: str = Field("", description="Where its staff interface is, for links and hints.")
    public_url: str = Field("", description="Where its public interface is, for links in descriptions.")

    find: str = Field(
        "",
        description="The archival object's identifier; by default the folder's name.",
    )
    by: Literal["component_id", "ref_id", "ark"] = Field(
        "component_id", description="Which identifier that is."
    )
    map: str = Field(
        "",
        description="A CSV file in the folder with the columns `file` and `component_id` (or what `by` "
        "says), for a folder that holds the files of several archival objects.",
    )
    pattern: str = Field(
        "",
        description="Instead of `map`: a regular expression that each file's path fits as a whole, whose "
        "group `object` is the identifier; `{` and `}` are doubled.",
    )
    files: list[str] = Field(
        default_factory=list,
        description="Which files become components, by patterns of names such as `*.tif`; by default all.",
    )

    write: bool = Field(True, description="Record; `false` only looks up, for steps that want to know.")
    masters: list[str] = Field(
        default_factory=list, description="Steps whose copies are recorded as file versions of components."
    )
    access: list[str] = Field(
        default_factory=list,
        description="Steps whose pages, thumbnails and manifests are recorded on the digital object.",
    )
    digital_object_id: str = Field(
        "", max_length=255, description="Of the digital object; the archival object's identifier by default."
    )
    digital_objects: Literal["together", "each"] = Field(
        "together",
        description="One digital object that holds the files of an archival object `together`, as its "
        "components, or one for `each` file, named like `component_id` says, without components.",
    )
    linked: Literal["refuse", "use", "add"] = Field(
        "refuse",
        description="What to do when the archival object has a digital object of another id already: "
        "`refuse`, `use` that one, or `add` one more.",
    )
    component_id: str = Field(
        COMPONENT_ID,
        min_length=1,
        description="Of each file's component, which must be unique in the repository. `{object-id}` is the "
        "digital object's id; by default a stem that begins with it stands alone.",
    )
    label: str = Field("{file}", min_length=1, description="Of each file's component.")
    digital_object_type: str = Field(
        "", description="Such as `still_image`; by default what the files' endings say."
    )
    publish: bool = Field(
        False, description="Publish the digital object itself; the masters' locations never are."
    )
    copy_description: bool | list[Part] = Field(
        False,
        description="What a new digital object is given of the archival object's description: `true`, or "
        "some of `dates`, `agents`, `subjects`, `languages`, `notes` (conditions of access and use, of the "
        "nearest level that has any, and the summary), `restrictions` and `extents`; `true` is all but the "
        "extents.",
    )
    unpublished: Literal["refuse", "allow"] = Field(
        "refuse",
        description="What to do when access copies are to be published and the archival object, or a level "
        "above it, is not.",
    )
    use_statement: str = Field(
        "", description="Of the masters, such as `image-master`; by default what the files' endings say."
    )
    formats: dict[str, str] = Field(
        default_factory=dict,
        description='Values of the list "file version file format name" by ending, such as `{".dng": dng}`.',
    )
    check_access: bool = Field(
        True, description="Fetch each page, thumbnail and manifest before it is recorded."
    )
    events: bool = Field(False, description="Record events in ArchivesSpace as well.")
    agent: str = Field(
        "",
        pattern=r"^(/agents/(software|people|families|corporate_entities)/\d+)?$",
        description="The agent of these events, such as `/agents/software/3`; by default one that is named "
        "like this version of dittohead, made where it is missing.",
    )

    @field_validator("staff_url", "public_url")
    @classmethod
    def _bare(cls, value: str) -> str:
        return value.rstrip("/")

    @field_validator("pattern")
    @classmethod
    def _expression(cls, value: str) -> str:
        if not value or "{{" in value:
            return value  # doubled braces are undone when placeholders are filled in
        try:
            groups = Pattern(value).groups
        except re.error as error:
            raise ValueError(f"this is not a regular expression: {error}") from None
        if "object" not in groups:
            raise ValueError("it needs a group (?P<object>...)")
        return value

    @model_validator(mode="after")
    def _one_way(self) -> ArchivesSpaceOptions:
        if self.map and self.pattern:
            raise ValueError("map and pattern exclude each other")
        if self.digital_objects == "each" and self.linked == "use":
            raise ValueError(
                "linked: use is for one digital object: use refuse or add with digital_objects: each"
            )
        if self.digital_object_id and (self.map or self.pattern):
            raise ValueError("digital_object_id is for folders of one object")
        return self

    @property
    def parts(self) -> frozenset[str]:
        """What of the description is copied."""
        if isinstance(self.copy_description, bool):
            return USUAL if self.copy_description else frozenset()
        return frozenset(self.copy_description)

    @property
    def base(self) -> str:
        """Where the repository is below the site: `/repositories/2`."""
        return f"/repositories/{self.repository}"
