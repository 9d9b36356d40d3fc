"""A policy for formats, as data: rules of which the first that fits a file gives the verdict."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from dittohead.workers.identify.process import Identified

Decision = Literal["accept", "warn", "hold", "refuse", "convert"]


class Conditions(BaseModel):
    """Which files are meant; all conditions that are named must fit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    puid: list[str] = Field(
        default_factory=list, description="PUIDs, or patterns such as `fmt/*`; `UNKNOWN` for no format."
    )
    mime: list[str] = Field(default_factory=list, description="MIME types, or patterns such as `image/*`.")
    extension: list[str] = Field(
        default_factory=list, description='Extensions of file names, without the dot; "" for none.'
    )
    warning: list[str] = Field(
        default_factory=list,
        description="Patterns of what Siegfried warns of, such as `*extension mismatch*`.",
    )

    @field_validator("puid", "mime", "extension", "warning", mode="before")
    @classmethod
    def _several(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    def fits(self, path: bytes, found: Identified) -> bool:
        """Tell whether a file is meant; of several formats that it may have, any one counts."""
        if self.extension and not _fits([_extension(path)], self.extension):
            return False
        if not (self.puid or self.mime or self.warning):
            return True
        return any(
            (not self.puid or _fits([match.id], self.puid))
            and (not self.mime or _fits([match.mime], self.mime))
            and (not self.warning or _fits([match.warning], self.warning))
            for match in found.matches
        )

    @property
    def is_empty(self) -> bool:
        """Whether it names nothing."""
        return not (self.puid or self.mime or self.extension or self.warning)

    def __str__(self) -> str:
        parts = [f"{key} {', '.join(getattr(self, key))}" for key in ("puid", "mime", "extension", "warning")
                 if getattr(self, key)]  # fmt: skip
        return "; ".join(parts)


class FormatRule(Conditions):
    """One rule; all that it names must fit."""

    then: Decision = Field(
        description="`accept`; `warn`: a warning in the receipt; `hold`: a person has to decide, the job "
        "is frozen until then; `refuse`: the folder fails; `convert`: noted in the list, for later steps."
    )
    why: str = Field("", description="The reason, shown with the verdict.")

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.is_empty:
            raise ValueError("name puid, mime, extension or warning; what fits no rule is `default`")
        return self

    def __str__(self) -> str:
        return super().__str__() + (f": {self.why}" if self.why else "")


@dataclass(frozen=True, kw_only=True)
class FormatVerdict:
    """What is to become of a file, and by which rule."""

    then: Decision
    rule: str


def verdict(rules: Sequence[FormatRule], default: Decision, path: bytes, found: Identified) -> FormatVerdict:
    """Return what the policy says of a file: by the first rule that fits.

    Args:
        default: where no rule fits.
        path: in the folder.
    """
    for number, rule in enumerate(rules, 1):
        if rule.fits(path, found):
            return FormatVerdict(then=rule.then, rule=f"rule {number} ({rule})")
    return FormatVerdict(then=default, rule="default")


def _extension(path: bytes) -> str:
    name = path.rpartition(b"/")[2].decode("utf-8", "replace")
    return name.rpartition(".")[2] if "." in name.lstrip(".") else ""


def _fits(values: Iterable[str], patterns: Iterable[str]) -> bool:
    return any(
        fnmatch.fnmatchcase(value.lower(), pattern.lower()) for value in values for pattern in patterns
    )
