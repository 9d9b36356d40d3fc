"""Who gets which notices: one entry of `notify:` in config.yaml, its key and how it may be shown."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from email.utils import parseaddr
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from dittohead.contract.options import Duration
from dittohead.system.users import Owner

#: What people can get notices of.
NoticeEvent = Literal[
    "done",
    "failed",
    "cancelled",
    "recovered",
    "late_change",
    "damaged",
    "frozen",
    "stuck",
    "stale",
    "held",
    "paused",
    "resumed",
    "nearly_full",
    "full",
]

#: Those a rule asks for that says nothing of them.
USUAL: tuple[NoticeEvent, ...] = (
    "failed",
    "recovered",
    "late_change",
    "damaged",
    "frozen",
    "stuck",
    "held",
    "paused",
    "resumed",
    "nearly_full",
    "full",
)

#: Stands in `to:` for the address of the person who uploaded the folder.
UPLOADER = "uploader"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.@-]{0,63}")


#: A host's name or address; an IPv6 address may stand in brackets.
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?|\[?[0-9A-Fa-f:]+(%\w+)?\]?")


#: A mail address as it may stand in a header: one, without a name or a line break.
ADDRESS = r"^[^\s<>,;:@()\"]+@[^\s<>,;:@()\"]+$"


def is_address(text: str) -> bool:
    """Tell whether a text is a mail address, also with a name before it: `Archive <a@example.org>`."""
    return text.isprintable() and re.match(ADDRESS, parseaddr(text)[1]) is not None


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _secrets(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def check_url(value: str | None) -> str | None:
    """Return an http(s) URL. Raises: ValueError; the value is not shown: it may hold a token."""
    if value is None:
        return None
    try:
        parts = urlsplit(value)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or not value.isprintable() or " " in value:
        raise ValueError("a URL that begins with https:// (or http://) is required")
    return value


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Place(_Model):
    """Something reached by a URL, which stands here or in a credential file."""

    url: str | None = Field(None, description="Its URL, where that holds no secret.")
    url_credential: str | None = Field(None, description="Name of the credential file that holds its URL.")

    _check_url = field_validator("url")(check_url)

    @model_validator(mode="after")
    def _one_url(self) -> _Place:
        if (self.url is None) == (self.url_credential is None):
            raise ValueError("exactly one of url and url_credential is required")
        return self

    @property
    def _identity(self) -> str:
        return f"url {self.url}" if self.url is not None else f"credential {self.url_credential}"

    @property
    def _shown(self) -> str:
        # In many URLs the host or the path is the token itself.
        return f"{urlsplit(self.url).scheme}://***" if self.url else f"credential {self.url_credential}"


class Webhook(_Place):
    """A program that takes notices as JSON, signed as www.standardwebhooks.com has it."""

    secret_credential: Annotated[
        list[str],
        BeforeValidator(_secrets),
        Field(min_length=1),
        WithJsonSchema({"type": ["string", "array"], "items": {"type": "string"}}),
    ] = Field(
        description="Name of the credential file that holds the secret (`whsec_...`); several while the "
        "secret is changed: each signs."
    )


class Ping(_Place):
    """A monitor of silence: it is asked for again and again, and tells people when that ends."""

    every: Duration = Field(60.0, ge=1, description="How often.")


class Smtp(_Model):
    """A mail server and who gets mail through it."""

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
    to: list[str] = Field(
        min_length=1,
        description="The addresses that get the mail; `uploader` stands for that of the person who uploaded "
        "the folder, by the map `uploaders`.",
    )

    @field_validator("host")
    @classmethod
    def _host(cls, value: str) -> str:
        """See that it is a name or an address alone."""
        name, _, port = value.rpartition(":")
        if port.isdigit() and ":" not in name:
            raise ValueError(f"the port stands by itself; write host: {name}, port: {port}")
        if not _HOST.fullmatch(value):
            raise ValueError('a host name is needed, such as "mail.example.org"')
        return value

    @field_validator("sender")
    @classmethod
    def _sender(cls, value: str) -> str:
        if not is_address(value):
            raise ValueError('an address is needed, such as "dittohead@example.org"')
        return value

    @field_validator("to")
    @classmethod
    def _to(cls, value: list[str]) -> list[str]:
        for one in value:
            if one != UPLOADER and not is_address(one):
                raise ValueError(
                    f'"{one}" is not an address; write one such as "archive@example.org", or uploader'
                )
        return value

    @property
    def fixed(self) -> list[str]:
        """The addresses that get every mail."""
        return [address for address in self.to if address != UPLOADER]


class Rule(_Model):
    """Who gets notices of which events."""

    smtp: Smtp | None = Field(None, description="Plain mail; needs nothing else installed.")
    webhook: Webhook | None = Field(None, description="JSON to a program, signed.")
    url: str | None = Field(None, description="An Apprise URL.")
    url_credential: str | None = Field(
        None, description="Name of the credential file that holds the Apprise URL."
    )
    ping: Ping | None = Field(None, description="A monitor of silence, told that the daemon is well.")
    on: list[NoticeEvent] = Field(
        default=list(USUAL), min_length=1, description="The events to send notices of."
    )
    pipelines: list[str] = Field(
        default_factory=list, description="Only jobs of these pipelines; all when left out."
    )
    uploaders: list[
        Annotated[
            str,
            BeforeValidator(_as_text),
            Field(min_length=1),
            WithJsonSchema({"type": ["string", "integer"]}),
        ]
    ] = Field(
        default_factory=list,
        description="Only folders of these users, `@groups` or user numbers; all when left out.",
    )
    digest: Duration | None = Field(
        None,
        ge=1,
        description="Notices are gathered for this long into one that lists them. A failure goes at once, "
        "and those that follow it within that time are gathered. One notice for each when left out.",
    )
    name: str = Field("", description="What this rule is called in the log and by `dittohead notify`.")

    @field_validator("url")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        try:
            scheme = urlsplit(value or "x://").scheme
        except ValueError:
            scheme = ""
        if not scheme:
            raise ValueError("this is not a URL")  # the value is not shown: it may hold a token
        return value

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if value and (not _NAME.fullmatch(value) or value.isdecimal()):
            raise ValueError("a name of letters, digits, spaces and ._@- is required, and no bare number")
        return value

    @model_validator(mode="after")
    def _one_way(self) -> Rule:
        ways = ("smtp", "webhook", "url", "url_credential", "ping")
        if sum(getattr(self, way) is not None for way in ways) != 1:
            raise ValueError("exactly one of url, url_credential, smtp, webhook and ping is required")
        beside = self.model_fields_set & {"on", "pipelines", "uploaders", "digest"}
        if self.ping is not None and beside:
            raise ValueError(f"a ping reports no events: {', '.join(sorted(beside))} has no meaning here")
        return self

    @property
    def kind(self) -> str:
        """The kind of receiver: "mail", "webhook", "apprise" or "ping"."""
        if self.smtp is not None:
            return "mail"
        if self.webhook is not None:
            return "webhook"
        return "ping" if self.ping is not None else "apprise"

    @property
    def key(self) -> str:
        """What stands for this rule's receiver in the store: a digest that gives no secret away."""
        if self.url is not None:
            identity = f"url {self.url}"
        elif self.url_credential is not None:
            identity = f"credential {self.url_credential}"
        elif self.smtp is not None:
            identity = f"smtp {self.smtp.host} {self.smtp.port} {sorted(self.smtp.to)}"
        else:
            place = self.webhook or self.ping
            assert place is not None  # noqa: S101
            identity = f"{self.kind} {place._identity}"
        return hashlib.sha256(identity.encode()).hexdigest()[:16]

    @property
    def shown(self) -> str:
        """This rule for logs and messages, without anything that may be a secret."""
        if self.name:
            return self.name
        if self.smtp is not None:
            return f"mail to {', '.join(self.smtp.to)}"
        place = self.webhook or self.ping
        if place is not None:
            return f"{self.kind} {place._shown}"
        if self.url_credential is not None:
            return f"credential {self.url_credential}"
        return f"{urlsplit(self.url or '').scheme}://***"

    @property
    def to_uploader(self) -> bool:
        """Whether it writes to the uploader of the folder."""
        return self.smtp is not None and UPLOADER in self.smtp.to

    @property
    def for_all(self) -> bool:
        """Whether it is for those who look after everything, not for a part of the folders only."""
        return self.ping is None and not self.pipelines and not self.uploaders

    def wants(self, event: str, pipeline: str | None) -> bool:
        """Tell whether this rule asks for an event (of a job of that pipeline)."""
        return (
            self.ping is None
            and event in self.on
            and (not self.pipelines or pipeline is None or pipeline in self.pipelines)
        )

    def is_for(self, owner: Owner | None) -> bool:
        """Tell whether this rule is for folders of an owner; None: for what has no owner."""
        if not self.uploaders or owner is None:
            return True
        theirs = {owner.user, str(owner.uid), *(f"@{group}" for group in owner.groups)}
        return not theirs.isdisjoint(self.uploaders)


def shown(rule: Rule) -> str:
    """Return a rule for logs, also one whose URL cannot be taken apart."""
    try:
        return rule.shown
    except ValueError:
        return "a rule whose URL cannot be read"


def check_rules(
    rules: Sequence[Rule], pipelines: Sequence[str] = (), uploaders: Mapping[str, str] | None = None
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield what makes these rules impossible here: where below `notify:`, and a statement with its cure.

    Args:
        pipelines: names of those there are.
        uploaders: addresses by user name or number; None where it does not matter.
    """
    needs_apprise = [i for i, rule in enumerate(rules) if rule.kind == "apprise"]
    if needs_apprise and importlib.util.find_spec("apprise") is None:
        text = "notices by URL need Apprise, which is not installed: pip install 'dittohead[notify]'"
        yield (needs_apprise[0],), text
    names: set[str] = set()
    for index, rule in enumerate(rules):
        if rule.name in names:
            yield (index, "name"), f'an earlier rule is called "{rule.name}" too'
        names |= {rule.name} - {""}
        for number, name in enumerate(rule.pipelines):
            if pipelines and name not in pipelines:
                yield (index, "pipelines", number), f'there is no pipeline "{name}"'
        if rule.to_uploader and uploaders is not None and not uploaders:
            text = "`uploader` stands here, and no address is known: name them with uploaders:"
            yield (index, "smtp", "to"), text
