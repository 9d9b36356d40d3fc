"""Whom to tell of what: one entry of `notify:` in config.yaml, its key and how it may be shown."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

#: What people can be told of.
NoticeEvent = Literal["done", "failed", "nearly_full", "stale", "paused", "resumed"]


class Smtp(BaseModel):
    """A mail server and who gets mail through it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field(description="The mail server.")
    port: int = Field(25, ge=1, le=65535, description="Its port.")
    starttls: Literal["auto", "required", "never"] = Field(
        "auto", description="Whether the connection is encrypted; `auto`: where the server offers it."
    )
    user: str | None = Field(None, description="Name to log in with; no login when left out.")
    password_credential: str | None = Field(
        None, description="Name of the credential file that holds the password."
    )
    sender: str = Field(description="The From address.")
    to: list[str] = Field(min_length=1, description="The addresses that get the mail.")


class Rule(BaseModel):
    """Who is told of which events."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str | None = Field(None, description="An Apprise URL.")
    url_credential: str | None = Field(
        None, description="Name of the credential file that holds the Apprise URL."
    )
    smtp: Smtp | None = Field(None, description="Plain mail; needs nothing else installed.")
    on: list[NoticeEvent] = Field(
        default=["failed", "paused", "resumed", "nearly_full"],
        min_length=1,
        description="The events to tell of.",
    )
    pipelines: list[str] = Field(
        default_factory=list, description="Only jobs of these pipelines; all when left out."
    )
    name: str = Field("", description="What this rule is called in the log.")

    @field_validator("url")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        try:
            scheme = urlsplit(value or "x://").scheme
        except ValueError:
            scheme = ""
        if not scheme:
            raise ValueError("this is no URL")  # the value is not shown: it may hold a token
        return value

    @model_validator(mode="after")
    def _one_way(self) -> Rule:
        given = [way for way in ("url", "url_credential", "smtp") if getattr(self, way) is not None]
        if len(given) != 1:
            raise ValueError("exactly one of url, url_credential and smtp is wanted")
        return self

    @property
    def key(self) -> str:
        """What stands for this rule in the outbox: a digest that gives no secret away."""
        if self.url is not None:
            identity = f"url {self.url}"
        elif self.url_credential is not None:
            identity = f"credential {self.url_credential}"
        else:
            assert self.smtp is not None  # noqa: S101
            identity = f"smtp {self.smtp.host} {self.smtp.port} {sorted(self.smtp.to)}"
        return hashlib.sha256(identity.encode()).hexdigest()[:16]

    @property
    def shown(self) -> str:
        """This rule for logs and messages, without anything that may be a secret."""
        if self.name:
            return self.name
        if self.smtp is not None:
            return f"mail to {', '.join(self.smtp.to)}"
        if self.url_credential is not None:
            return f"credential {self.url_credential}"
        # In many Apprise URLs the host or the path is the token itself.
        return f"{urlsplit(self.url or '').scheme}://***"

    def wants(self, event: str, pipeline: str | None) -> bool:
        """Tell whether this rule asks for an event (of a job of that pipeline)."""
        return event in self.on and (not self.pipelines or pipeline is None or pipeline in self.pipelines)


def check_rules(rules: Sequence[Rule]) -> list[str]:
    """Return what makes these rules impossible here, each a statement with its cure."""
    needs_apprise = any(rule.smtp is None for rule in rules)
    if needs_apprise and importlib.util.find_spec("apprise") is None:
        return ["notices by URL need Apprise, which is not installed: pip install 'dittohead[notify]'"]
    return []
