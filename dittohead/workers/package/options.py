"""What a package step may be told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from dittohead.contract.options import Duration, Size
from dittohead.contract.worker import Options
from dittohead.toolkit.sip.descriptive import ELEMENTS

#: `update_of` that asks what earlier jobs have recorded.
OF_HISTORY = "history"

#: A date and a time in UTC. Source: RFC 3339.
_MOMENT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"


class PackageOptions(Options):
    """What a package step may be told."""

    profile: str = Field(
        "generic",
        description="What kind of package: `generic`, `dpres-1.8`, or the path of a profile (YAML or JSON).",
    )
    id: str = Field(
        "{name}",
        min_length=1,
        pattern=r"^[!-~]+( [!-~]+)*$",
        description="Its identifier (METS' OBJID): the same for all versions of one package.",
    )
    label: str = Field("", description="Its title, for people.")
    creator: str = Field("", description="The organization that makes it.")
    values: dict[str, str] = Field(
        default_factory=dict,
        description="What the profile asks for besides, such as the `contract` of `dpres-1.8`.",
    )
    path: str = Field("", description="Name of the archive that is made; `{name}.tar` by default.")
    form: Literal["folder", "tar", "zip"] | None = Field(
        None, description="What is made: files, or one archive. By default as the profile says."
    )
    metadata: list[str] = Field(
        default_factory=list,
        description="Patterns of files that are descriptive metadata, such as `*/lido.xml`: LIDO, MODS, "
        "Dublin Core, and what else the profile knows. They are copied into the METS document.",
    )
    dc: dict[str, str | list[str]] = Field(
        default_factory=dict,
        description="Elements of Dublin Core with their values, in place of what is known of the object.",
    )
    describe_as: Literal["dc", "mods"] = Field(
        "dc", description="How what is known of the object is written: Dublin Core or MODS."
    )
    record: str = Field(
        "", description="The step that describes the objects; by default the first that does."
    )
    formats: str = Field(
        "", description="The step `identify` that has named the formats of these files, with `format: json`."
    )
    identifier: str = Field(
        "",
        description="Identifier of each file (PREMIS), such as `{path}`. By default a UUID made of the "
        "package's identifier and the file's path.",
    )
    identifier_type: str = Field("local", min_length=1, description="What `identifier` is, in a word.")
    charset: str = Field("", description="Character set of texts that are not UTF-8 and do not name theirs.")
    use: dict[str, str] = Field(
        default_factory=dict,
        description="Patterns of files, each with the `USE` of these files in the METS document. What the "
        "profile says of formats does not apply to them.",
    )
    update_of: str = Field(
        "",
        description="When the first version of this package was made (its CREATEDATE). With it, the package "
        "is an update of that. `history`: as a step `submit` of an earlier job of the same name has recorded "
        "it; a first version where none was accepted.",
    )
    schemas: Path | None = Field(
        None,
        description="Directory of the schemas and schematrons that the profile names; with it, the METS "
        "document is validated by them. Nothing is fetched.",
    )
    signing_credential: str = Field(
        "",
        description="The credential with a private key and its certificate (PEM), for profiles with a "
        "signature.",
    )
    memory: Size = Field(
        1 << 30, ge=256 << 20, description="Address space of the program that writes the METS document."
    )
    timeout: Duration = Field(
        600.0, gt=0, description="The longest that this program may show no sign of life."
    )

    @field_validator("path")
    @classmethod
    def _plain(cls, value: str) -> str:
        if "/" in value or value in (".", ".."):
            raise ValueError("write a file's name without a directory, such as {name}.tar")
        return value

    @field_validator("dc")
    @classmethod
    def _elements(cls, value: dict[str, str | list[str]]) -> dict[str, str | list[str]]:
        for name in value:
            if name not in ELEMENTS:
                raise ValueError(f"{name} is not an element of Dublin Core: {', '.join(sorted(ELEMENTS))}")
        return value

    @field_validator("update_of")
    @classmethod
    def _moment(cls, value: str) -> str:
        if value and value != OF_HISTORY and "{" not in value and not re.fullmatch(_MOMENT, value):
            raise ValueError("write a moment in UTC, such as 2026-11-30T08:00:00Z, or history")
        return value

    @model_validator(mode="after")
    def _type_of_what(self) -> PackageOptions:
        if "identifier_type" in self.model_fields_set and not self.identifier:
            raise ValueError("identifier_type: has no meaning without identifier:")
        return self
