"""What a submit step may be told."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from dittohead.contract.options import Duration, Size
from dittohead.contract.worker import Options
from dittohead.system import patterns
from dittohead.toolkit.rest import RestSite

_DAY = 86400.0


class SftpPlace(Options):
    """The directories of a service that are reached over SFTP."""

    host: str = Field(min_length=1, description="Name or address of the service.")
    port: int = Field(22, ge=1, le=65535, description="Its port.")
    user: str = Field(min_length=1, description="The user there.")
    key: str = Field(min_length=1, description="The credential with the private key, without a passphrase.")
    known_hosts: Path = Field(
        description="The file with the service's host key, as ssh has it. A service with another key is "
        "refused."
    )
    directory: str = Field(
        ".", min_length=1, description="The directory that holds `transfer`, `accepted` and `rejected`."
    )

    @property
    def address(self) -> str:
        """Where it is, for people."""
        port = "" if self.port == 22 else f":{self.port}"
        return f"sftp://{self.user}@{self.host}{port}"


class RestPlace(RestSite):
    """A service that is reached over its REST interface."""

    user: str = Field(min_length=1, description="The user there.")
    credential: str = Field(min_length=1, description="The credential with the user's password.")
    contract: str = Field(min_length=1, description="The agreement, such as `urn:uuid:...`.")


class FreezeRule(Options):
    """A reason of the service for which a person is to decide."""

    match: str = Field(
        min_length=1,
        description="Regular expression that is searched in what the service says. Write `{{` for `{`.",
    )
    reason: str = Field(
        min_length=1, description="Why the job is frozen. Jobs with one reason can be thawed together."
    )

    @field_validator("match")
    @classmethod
    def _pattern(cls, value: str) -> str:
        try:
            patterns.Pattern(value)
        except re.error as error:
            raise ValueError(f"this cannot be read as a regular expression: {error}") from None
        return value


class SubmitOptions(Options):
    """What a submit step may be told."""

    sftp: SftpPlace | None = Field(None, description="Send the package over SFTP.")
    rest: RestPlace | None = Field(
        None,
        description="Without `sftp`: send the package over REST 3.0 (tus). With `sftp`: ask for reports over "
        "REST 2.0 as well.",
    )
    file: str = Field(
        "",
        pattern=r"^[^/]*$",
        description="Name of the package at the service. By default the archive's name with the job's id, "
        "unless it holds that. It must be another one for each job: put `{id}` into it.",
    )
    object_id: str = Field(
        "", description="The object's id in the package (OBJID). By default as the step `package` says."
    )
    ask_first: Duration = Field(
        300.0, gt=0, description="How long to wait for the first look for an answer. It grows with the wait."
    )
    ask_most: Duration = Field(6 * 3600.0, gt=0, description="The longest between two looks.")
    answer_within: Duration = Field(
        14 * _DAY,
        gt=0,
        description="Without an answer for that long, the job is frozen: a person has to ask.",
    )
    reports_kept: Duration = Field(
        10 * _DAY,
        gt=0,
        description="How long the service keeps its answers. When nobody could look for that long, the job "
        "is frozen, as an answer may be gone.",
    )
    freeze_on: list[FreezeRule] = Field(
        default_factory=list,
        description="What the service may say when it rejects a package, for which the job is frozen and "
        "does not fail. The first that fits counts.",
    )
    schemas: Path | None = Field(
        None,
        description="Directory of the service's schemas (dpres-xml-schemas); with it, its reports are "
        "validated by them.",
    )
    part: Size = Field(
        100 << 20,
        ge=1 << 20,
        description="Bytes that are sent in one request over REST. No more are repeated.",
    )

    @model_validator(mode="after")
    def _one_way(self) -> SubmitOptions:
        if self.sftp is None and self.rest is None:
            raise ValueError("sftp: or rest: is required")
        if self.ask_most < self.ask_first:
            raise ValueError("ask_most: is shorter than ask_first:")
        if self.ask_most >= self.reports_kept:
            raise ValueError("ask_most: must be shorter than reports_kept:, or answers go unseen")
        return self

    @property
    def address(self) -> str:
        """Where packages go, for people."""
        if self.sftp is not None:
            return self.sftp.address
        assert self.rest is not None  # noqa: S101  # by the validator
        return self.rest.url
