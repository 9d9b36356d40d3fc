"""What config.yaml may say: each setting, its default and its meaning."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel, field_validator

from dittohead.config.notice_rules import ADDRESS, Rule
from dittohead.contract.options import Duration, Rate, Size
from dittohead.system.patterns import Pattern

#: Scheme, host and port: the page's addresses begin at the top of its host.
_PUBLIC = re.compile(r"https?://(?P<host>[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(:(?P<port>[0-9]{1,5}))?/?")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Retry(_Model):
    """How a step that failed for a temporary reason is tried again."""

    attempts: int = Field(8, ge=1, description="Tries before the job fails.")
    first: Duration = Field(5.0, description="Wait before the second try; doubled each time, with jitter.")
    most: Duration = Field(900.0, description="The longest wait between two tries.")


class Watch(_Model):
    """How the inbox is watched."""

    mode: Literal["auto", "inotify", "polling"] = Field(
        "auto",
        description="`auto` polls where the file system sends no events (NFS, SMB, FUSE).",
    )
    interval: Duration = Field(
        5.0, gt=0, description="The inbox is looked at this often even without any event."
    )
    settle: Duration = Field(
        2.0,
        description="A folder is taken when nothing in it has changed for this time. 0: at once, whatever "
        "its age; nobody then sees whether it is still being written.",
    )
    settle_in_place: Duration = Field(
        90.0,
        description="The same, for a folder in which something changed after it got its name: it is being "
        "written without the dot. Not less than `settle`.",
    )
    partial: list[Annotated[str, Field(min_length=1)]] = Field(
        default_factory=lambda: ["default"],
        description="Names of files and directories (`*`, `?` and `[...]` allowed) that say that an upload "
        "is not finished: a folder that holds one is not taken. `default` stands for those of rsync, WinSCP, "
        "lftp, Nextcloud, rclone, browsers and office programs, `XXXXXX` for six letters or digits, "
        "`mtime=0` for files last changed in 1970, as rsync marks those it left truncated. `[]`: none.",
    )
    late_look: Duration = Field(
        300.0,
        description="This long after a folder came to `done/` it is compared with its manifest again; what "
        "was changed is recorded and told. 0: never.",
    )
    held_after: Duration = Field(
        900.0,
        description="What stays in the inbox for this long, for a reason that somebody must do something "
        "about, is told (`held`).",
    )
    ignore: list[Annotated[str, Field(min_length=1)]] = Field(
        default_factory=lambda: ["default"],
        description="Names in the inbox that are ignored (`*`, `?` and `[...]` allowed; capitals do not "
        "matter): never taken, never reported. `default` stands for those of file systems, file servers and "
        "desktops, such as `lost+found`, `@eaDir`, `#recycle`, `.stfolder`, `.Trash-*` and `Thumbs.db`. "
        "`[]`: none.",
    )
    stale_after: Duration = Field(
        86400.0,
        description="A dotted folder in which nothing has changed is reported as stale after this time.",
    )


class Space(_Model):
    """When the disk is too full to take another folder."""

    floor: Size = Field(
        1 << 30,
        description="Bytes that stay free on the root's file system; below, work waits. Where `work/`, "
        "`receipts/` or `state/` lie on another file system: on that one, too, but a tenth of it at most.",
    )


class Verify(_Model):
    """How often what was delivered is compared with its receipt again."""

    every: Duration = Field(
        gt=0,
        description="How long after its end, or after its latest check, each job is checked again: what lies "
        "at its targets, and what still lies in `done/` and `work/`.",
    )
    rate: Rate = Field(
        50_000_000, gt=0, description="Bytes a second that are read for it, at most, all targets together."
    )
    read: bool = Field(
        False,
        description="Also read objects of which their store tells a checksum by itself. Stores that charge "
        "for reading charge for this.",
    )


class StopSettings(_Model):
    """What `systemctl stop` does with jobs that are running."""

    mode: Literal["interrupt", "drain"] = Field(
        "interrupt",
        description="`interrupt` ends running steps at once, they are repeated at the next start; "
        "`drain` finishes running jobs first.",
    )
    drain: Duration = Field(
        3600.0, description="The longest a drain may take before it turns into an interrupt."
    )


class Proxy(_Model):
    """A reverse proxy in front that signs people in and tells who they are by a header."""

    from_: list[str] = Field(
        alias="from",
        min_length=1,
        description="Addresses or networks the proxy comes from, such as 127.0.0.1 or 10.1.0.0/24; `unix` "
        "where `listen` is a unix socket. From anyone else the headers are refused.",
    )
    user: str = Field(
        "X-Remote-User",
        description="Header that holds the person's name. The proxy must set it itself, and remove one that "
        "came from outside.",
    )
    groups: str | None = Field(
        None, description="Header that holds the person's groups, separated by commas; none by default."
    )
    readers: list[Annotated[str, Field(min_length=1)]] = Field(
        default_factory=lambda: ["*"],
        description="Who may read: names, groups as `@group`, or `*` for everybody whom the proxy names.",
    )
    operators: list[Annotated[str, Field(min_length=1)]] = Field(
        default_factory=list, description="Who may also act: names, groups as `@group`, or `*`."
    )

    @field_validator("from_")
    @classmethod
    def _from(cls, value: list[str]) -> list[str]:
        for place in value:
            if place != "unix":
                try:
                    ipaddress.ip_network(place)
                except ValueError as error:
                    raise ValueError(
                        f'"{place}" is not an address or network, such as 127.0.0.1 or 10.1.0.0/24'
                    ) from error
        return value

    @field_validator("user", "groups")
    @classmethod
    def _header(cls, value: str | None) -> str | None:
        # Header fields are letters, digits and hyphens here: proxies drop those with underscores.
        if value is not None and not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", value):
            raise ValueError("the name of a header is required, such as X-Remote-User")
        return value


class Drop(_Model):
    """What may be uploaded by the page's form at once."""

    most_bytes: Size = Field(1 << 40, ge=1, description="Bytes of one folder.")
    most_files: int = Field(100_000, ge=1, description="Files of one folder.")


class Http(_Model):
    """Where the page and the API are served over the network, and to whom."""

    listen: str = Field(
        "127.0.0.1:8140",
        description="HOST:PORT, or the path of a unix socket beginning with /. Beyond this host only with "
        "`tokens` or `proxy`.",
    )
    names: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]+$")]] = Field(
        default_factory=list,
        description="Host names under which it is reached, such as that of the proxy. Requests under other "
        "names than these, this host's, localhost and addresses are refused.",
    )
    public_url: str | None = Field(
        None,
        description="Where people reach the page, such as https://ingest.example.org; notices link to it.",
    )
    tokens: str | None = Field(
        None, description="Name of the credential file that holds people's and programs' tokens."
    )
    proxy: Proxy | None = Field(None, description="A reverse proxy that signs people in; none by default.")
    read: Literal["open", "token"] | None = Field(
        None,
        description="`open`: everybody who reaches the address may read; `token`: only who has a token or is "
        "named by the proxy. By default `token` where there are `tokens` or a `proxy`, otherwise `open`.",
    )
    session: Duration = Field(
        43200.0, gt=0, description="How long somebody who signed in by a token stays signed in."
    )
    drop: Drop = Field(
        default_factory=lambda: Drop.model_validate({}), description="Bounds of the page's form for uploads."
    )

    @field_validator("listen")
    @classmethod
    def _listen(cls, value: str) -> str:
        if value.startswith("/"):
            return value
        found = re.fullmatch(r"(?:\[[0-9a-fA-F:]+\]|[\w.-]+):(\d{1,5})", value)
        if found is None:
            raise ValueError("write HOST:PORT, or the path of a unix socket")
        if int(found[1]) >= 1 << 16:
            raise ValueError("a port is at most 65535")
        return value

    @field_validator("public_url")
    @classmethod
    def _public_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        found = _PUBLIC.fullmatch(value)
        if found is None or not int(found["port"] or 1) < 1 << 16:
            raise ValueError(
                "http:// or https:// and a host is required, without a path, such as https://ingest.example.org"
            )
        return value.rstrip("/")

    @property
    def open_to_read(self) -> bool:
        """Whether everybody who reaches the address may read."""
        return self.read == "open" or (self.read is None and self.tokens is None and self.proxy is None)

    def problems(self) -> Iterator[tuple[str, str, str]]:
        """Yield (key, what is wrong, what to do) of settings that do not go together."""
        unguarded = self.tokens is None and self.proxy is None
        if unguarded and not self.listen.startswith("/") and not is_loopback(self.listen.rpartition(":")[0]):
            yield (
                "listen",
                "beyond this host, everybody could read all of it",
                "Say who may with tokens or proxy, or listen on 127.0.0.1",
            )
        if unguarded and self.read == "token":
            yield "read", "nobody could read, for there are no tokens and no proxy", "Add tokens or a proxy"
        host = _PUBLIC.fullmatch(self.public_url or "")
        if host and not self._answers(host["host"].lower()):
            hint = f"Add it: names: [{', '.join([*self.names, host['host']])}]"
            yield "public_url", f"the page does not answer under the name {host['host']}", hint
        if self.proxy and "unix" in self.proxy.from_ and not self.listen.startswith("/"):
            yield "proxy", "`from: [unix]` goes with a unix socket", "Set listen to the socket's path"

    def _answers(self, host: str) -> bool:
        """Tell whether requests under a host's name are answered: those of addresses are."""
        try:
            ipaddress.ip_address(host.strip("[]"))
        except ValueError:
            known = {"localhost", os.uname().nodename.lower(), *(name.lower() for name in self.names)}
            return host in known
        return True


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address is this host alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class PipelineSettings(_Model):
    """A named, ordered list of steps, and which folders go through it."""

    match: str = Field(
        description="Regular expression that the whole folder name must match; its named groups can "
        "stand in any option. The first pipeline that matches is taken."
    )
    description: str = Field(
        "",
        max_length=300,
        description="What the pipeline is for, in a few words; shown to people who choose a folder's name.",
    )
    example: str = Field(
        "",
        description="A folder's name that goes through this pipeline; shown to people instead of `match`.",
    )
    steps: list[dict[str, Any]] = Field(min_length=1, description="The steps, in order.")
    each: Literal["folder"] | None = Field(
        None,
        description="`folder`: what is dropped is a collection, and each folder in it becomes a job by "
        "itself; all of them are one batch.",
    )
    files: Literal["folder"] | None = Field(
        None,
        description="`folder`: a file in the inbox whose name `match` fits becomes a folder of the same name "
        "that holds it, and is taken as that. Otherwise files in the inbox are left alone.",
    )
    complete: Literal["bag", "list"] | list[Literal["bag", "list"]] = Field(
        default_factory=list,
        description="A folder is held in the inbox until it is complete by names and sizes: `bag` by a bag's "
        "manifests and Payload-Oxum, `list` by lists of checksums as the step `checksum` finds them, "
        "`[bag, list]` by either. The manifest that `dittohead-send` sends along always counts.",
    )
    uploaders: list[Annotated[str, Field(min_length=1)]] = Field(
        default_factory=list,
        description="Groups (or users) of whom a folder's owner must be one; others' folders go to "
        "`failed/`. Everybody by default: the name alone chooses the pipeline.",
    )
    links: Literal["refuse", "skip"] = Field(
        "refuse",
        description="What to do with a folder that holds symbolic links, FIFOs, sockets or devices: "
        "fail it, or leave them out and record how many.",
    )
    ignore: list[str] = Field(
        default_factory=list,
        description="Names (`*` and `?` allowed) that no step is given, such as `.DS_Store`; they stay "
        "in the folder and stand in its manifest.",
    )
    partial: list[Annotated[str, Field(min_length=1)]] | None = Field(
        None,
        description="Names that say that an upload is not finished, for this pipeline's folders instead of "
        "those of `watch`.",
    )
    space_factor: float | None = Field(
        None,
        ge=0,
        description="Free bytes needed under the root for each byte of the folder; by default the sum "
        "of what the steps declare.",
    )
    keep_done: Duration | Literal["forever"] = Field(
        "forever",
        description="How long a folder stays in `done/`. Then its copies are compared with the receipt once "
        "more, and the folder is removed, where each of its files, or something made of it, was delivered. "
        "The receipt stays.",
    )
    keep_work: Duration | Literal["forever"] | None = Field(
        None,
        description="How long what the steps made is kept under work/ after the job is done. By "
        "default 7d, or forever when a step made something that no later step delivers.",
    )

    @property
    def completeness(self) -> tuple[str, ...]:
        """By what a folder is to be seen to be complete."""
        given = [self.complete] if isinstance(self.complete, str) else self.complete
        return tuple(sorted(set(given)))

    @field_validator("match")
    @classmethod
    def _match(cls, value: str) -> str:
        try:
            Pattern(value)
        except re.error as error:
            raise ValueError(f"this is not a regular expression: {error}") from error
        return value


Address = Annotated[str, Field(pattern=ADDRESS)]


class Addresses(RootModel[dict[str, Address]]):
    """A file of uploaders' addresses."""


class Settings(_Model):
    """The whole of config.yaml."""

    root: Path = Field(
        description="Directory that holds inbox, processing, done and failed, on one file system; "
        "relative to this file."
    )
    store: str = Field("sqlite", description="`sqlite` (embedded), or `postgresql://user@host/database`.")
    store_credential: str | None = Field(
        None, description="Name of the credential file that holds the PostgreSQL password."
    )
    limits: dict[str, Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict,
        description="Bounds on this host: `jobs`, and steps (or child processes) of each kind at once.",
    )
    pipelines: dict[str, PipelineSettings] = Field(
        min_length=1, description="The pipelines, in the order they are tried."
    )
    sources: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="What brings work in from elsewhere: names, each with a kind and its options.",
    )
    notify: list[Rule] = Field(default_factory=list, description="Who gets which notices.")
    uploaders: dict[str, Address] = Field(
        default_factory=dict,
        description="Addresses of uploaders, by user name or number, for rules that write to `uploader`.",
    )
    uploaders_file: Path | None = Field(
        None, description="A YAML file with more of them, one mapping; relative to this file."
    )
    templates: Path | None = Field(
        None,
        description="Directory of templates for notices in other words, EVENT.txt each; relative to this "
        "file.",
    )
    stuck_after: Duration = Field(
        86400.0,
        gt=0,
        description="A job that has not ended after this time is reported as stuck, once a day.",
    )
    nearly_full: float = Field(
        90.0, gt=0, le=100, description="Percent of a target's disk from which its people are told."
    )
    http: Http | None = Field(None, description="The page and the API; none over the network when left out.")
    retry: Retry = Field(default_factory=lambda: Retry.model_validate({}), description="Tries.")
    watch: Watch = Field(default_factory=lambda: Watch.model_validate({}), description="The inbox.")
    approve_deletion: bool | None = Field(
        None,
        description="Whether another person has to approve it when somebody deletes a job's folder. By "
        "default true where `http:` knows people, by `tokens` or `proxy`.",
    )
    verify: Verify | None = Field(
        None, description="The fixity schedule; without it, nothing is checked again by itself."
    )
    space: Space = Field(default_factory=lambda: Space.model_validate({}), description="The disk.")
    stop: StopSettings = Field(
        default_factory=lambda: StopSettings.model_validate({}), description="Stopping."
    )
    log: Literal["debug", "info", "warning", "error"] = Field("info", description="The least log level.")

    @property
    def needs_approval(self) -> bool:
        """Whether another person has to approve that a folder is deleted."""
        known = self.http is not None and (self.http.tokens is not None or self.http.proxy is not None)
        return known if self.approve_deletion is None else self.approve_deletion

    @field_validator("store")
    @classmethod
    def _store(cls, value: str) -> str:
        if value != "sqlite" and not value.startswith(("postgresql://", "postgres://")):
            raise ValueError('"sqlite" or "postgresql://user@host/database" is required')
        if re.search(r"://[^/@]*:[^/@]*@|[?&](ssl)?password=", value):
            raise ValueError(
                "a password does not belong here; put it in a credential file and name that with "
                "store_credential"
            )
        return value
