"""What a bag step may be told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from dittohead.contract.worker import Options

Algorithm = Literal["md5", "sha1", "sha256", "sha512"]

#: Labels whose values the step itself knows. Source: RFC 8493, 2.2.2.
OURS = frozenset({"payload-oxum", "bagging-date", "bag-size"})


#: Of a host, or of all hosts below a name.
_HOST = r"^(\*\.)?[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$"


class BagOptions(Options):
    """What a bag step may be told."""

    check: bool = Field(
        False, description="Validate the bag that was dropped, in place of making one; nothing is made."
    )
    algorithms: list[Algorithm] = Field(
        ["sha256", "sha512"],
        min_length=1,
        description="Of the manifests of a bag that is made.",
    )
    info: dict[str, str] = Field(
        default_factory=dict,
        description="Labels and values of `bag-info.txt`, such as `{Source-Organization: City Archive}`. "
        "`Bagging-Date`, `Payload-Oxum` and `Bag-Size` are filled in, and, where they are known, "
        "`External-Identifier` and `External-Description`.",
    )
    form: Literal["folder", "tar", "zip"] = Field(
        "folder", description="What is made: the bag as files, or one archive that holds it."
    )
    profile: Path | None = Field(
        None,
        description="A BagIt profile (JSON, such as those of bagit-profiles), which the bag must conform to.",
    )

    fetch: list[Annotated[str, Field(pattern=_HOST)]] = Field(
        default_factory=list,
        description="With `check`: hosts, such as `files.example.org` or `*.example.org`. What `fetch.txt` "
        "lists and the bag lacks is fetched from them. The completed bag is made, for later steps with "
        "`from:`. Without it nothing is fetched, and a bag that lacks files fails.",
    )

    @field_validator("info")
    @classmethod
    def _labels(cls, value: dict[str, str]) -> dict[str, str]:
        for label in value:
            if not label.strip() or label != label.strip() or ":" in label or not label.isprintable():
                raise ValueError(f'"{label}" is not a label: write it without colons and outer blanks')
            if label.lower() in OURS:
                raise ValueError(f"{label} is filled in by the step: leave it out")
        return value

    @field_validator("algorithms")
    @classmethod
    def _once(cls, value: list[Algorithm]) -> list[Algorithm]:
        if len(set(value)) != len(value):
            raise ValueError("an algorithm is named twice")
        return value

    @model_validator(mode="after")
    def _one_purpose(self) -> BagOptions:
        made = {"algorithms", "info", "form"} & self.model_fields_set
        if self.check and made:
            raise ValueError(f"check: true makes no bag, so that {sorted(made)[0]} has no meaning with it")
        if self.fetch and not self.check:
            raise ValueError("fetch: completes a bag that is checked: write check: true")
        return self
