"""Profiles: what a preservation service asks of a package, as data in YAML or JSON files."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError, field_validator

from dittohead.system.patterns import Pattern

#: Where the profiles lie that come with dittohead.
HERE = Path(__file__).parent / "profiles"


class BadPackageProfile(Exception):
    """A file is not a profile; says why."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Value(_Part):
    """A value that a profile asks a site for, such as the number of its contract."""

    about: str = ""  #: for people
    pattern: str = ".+"  #: a regular expression that the whole value must match
    required: bool = True

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            Pattern(value)
        except re.error as error:
            raise ValueError(f"this is not a regular expression: {error}") from None
        return value


class Descriptive(_Part):
    """A kind of descriptive metadata, known by the root of its documents."""

    namespace: str
    roots: tuple[str, ...]  #: local names; a wrapper's children of the first name are taken
    wrapper: str = ""  #: local name of a root that holds one or more of the others
    mdtype: str  #: METS' MDTYPE
    othermdtype: str = ""  #: where that is OTHER
    version: str = ""  #: MDTYPEVERSION
    version_attribute: str = ""  #: of the root, which has the version, where it is there


class Format(_Part):
    """How a file format is named."""

    puid: str
    name: str  #: a media type
    version: str = ""  #: in place of what identified it says; "" for that
    written: str = ""  #: the PUID that stands for it in the package, of which it is an earlier version
    needs: str = ""  #: technical metadata that is demanded and that is not written here, such as AudioMD


class Formats(_Part):
    """What a profile says of file formats."""

    required: bool = False  #: the format of every file must be known
    only_listed: bool = False  #: no others than those listed
    unknown_version: str = ""  #: what is written where a format has no version
    charset: tuple[str, ...] = ()  #: media types whose name is followed by "; charset="
    charsets: tuple[str, ...] = ()  #: character sets that are allowed there
    images: tuple[str, ...] = ()  #: media types that must have MIX; others that can be read have it, too
    listed: tuple[Format, ...] = ()


class Limits(_Part):
    """What a package may hold at most; 0: as much as there is."""

    files: NonNegativeInt = 0
    file_size: NonNegativeInt = 0  #: bytes of one file
    size: NonNegativeInt = 0  #: bytes of all files


class Schematron(_Part):
    """A file of rules."""

    file: str  #: relative to the directory of schemas
    where: str = ""  #: only for a package with metadata of this MDTYPE or OTHERMDTYPE


class Schemas(_Part):
    """By what the METS document is validated; paths are relative to the directory of schemas."""

    required: bool = False
    catalog: str = ""  #: an XML catalog: which file stands for which address
    xsd: dict[str, str] = Field(default_factory=dict)  #: namespace: file
    schematron: tuple[Schematron, ...] = ()
    #: the schematrons say nothing of names, sizes and digests, so that a few files of each kind stand for all
    #: that are alike in everything else; the schemas see every file in any case
    alike: bool = False


class MetsProfile(_Part):
    """What a METS document has besides what all have."""

    namespaces: dict[str, str] = Field(default_factory=dict)  #: prefix: namespace
    #: name: template with `{id}`, `{label}` and the profile's values; one that comes out empty is left out
    attributes: dict[str, str] = Field(default_factory=dict)
    schema_location: str = ""
    href: str = ""  #: what stands before a file's path in its FLocat
    checksums: bool = True  #: whether `file` has CHECKSUM, SIZE and MIMETYPE
    creator_required: bool = False


class Profile(_Part):
    """What one kind of package is."""

    name: str
    about: str = ""
    layout: Literal["bag", "files"] = "files"
    form: Literal["folder", "tar", "zip"] = "tar"
    top: bool = False  #: an archive holds one directory, which all lies in
    payload: str = "data/"  #: where the files lie in the package
    mets: MetsProfile = MetsProfile()
    premis: Literal["2.3", "3.0"] = "3.0"
    values: dict[str, Value] = Field(default_factory=dict)
    event_types: dict[str, str] = Field(default_factory=dict)  #: by our own; "" leaves such events out
    outcomes: dict[str, str] = Field(default_factory=dict)  #: by our own
    descriptive: tuple[Descriptive, ...] = ()
    descriptive_required: bool = False
    formats: Formats = Formats()
    limits: Limits = Limits()
    schemas: Schemas = Schemas()
    signature: str = ""  #: name of a file with the signed digest of the METS document; "" for none
    uses: tuple[str, ...] = ()  #: values that a file's USE may have; () for any

    @field_validator("payload")
    @classmethod
    def _directory(cls, value: str) -> str:
        if value and (not value.endswith("/") or value.startswith("/") or ".." in value.split("/")):
            raise ValueError("write a directory inside the package, such as data/")
        return value

    @cached_property
    def by_puid(self) -> dict[str, Format]:
        """The formats that it lists."""
        return {one.puid: one for one in self.formats.listed}

    def problems(self, values: dict[str, str]) -> list[str]:
        """Return what is wrong with a site's values, each a sentence."""
        found = [
            f'the profile {self.name} has no value "{name}"' for name in values if name not in self.values
        ]
        for name, wanted in self.values.items():
            about = f" ({wanted.about})" if wanted.about else ""
            if not values.get(name):
                found += [f"values: {name} is missing{about}"] if wanted.required else []
            elif Pattern(wanted.pattern).fullmatch(values[name]) is None:
                found.append(
                    f'values: {name}: "{values[name]}" does not have the form that is asked for{about}'
                )
        return found


def names() -> list[str]:
    """Return the names of the profiles that come with dittohead."""
    return sorted(path.stem for path in HERE.glob("*.yaml"))


def path_of(profile: str) -> Path:
    """Return where a profile lies, by its name or its path."""
    return HERE / f"{profile}.yaml" if profile in names() else Path(profile)


def read(profile: str) -> Profile:
    """Return a profile, by the name of one that comes with dittohead or by a path.

    Raises: BadPackageProfile: it is none; OSError.
    """
    try:
        return Profile.model_validate(yaml.safe_load(path_of(profile).read_bytes()))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise BadPackageProfile(
            f"{'.'.join(map(str, first['loc'])) or 'all of it'}: {first['msg']}"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadPackageProfile(" ".join(str(error).split())) from None
