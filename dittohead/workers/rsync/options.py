"""What an rsync step may be told, where it delivers, and the arguments that rsync is given for it."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote_from_bytes

from pydantic import Field, field_validator, model_validator

from dittohead.contract.options import Duration, Size
from dittohead.contract.worker import Inputs, Options
from dittohead.system.attributes import Keeps
from dittohead.system.process import UMASK, Probe

PROBE = Probe(program="rsync", package="rsync")
SSH = Probe(program="ssh", package="openssh-client", version_argv=("-V",), version_pattern=r"OpenSSH_(\S+)")


_HOST = re.compile(
    r"(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.-]*)@)?(?P<host>\[[0-9A-Fa-f:]+\]|[A-Za-z0-9][\w.-]*):"
)


#: What stands for a folder alone, of the placeholders; others may stand for its study.
_OWN = re.compile(r"\{(?:name|id|date)[^{}]*\}")


class SshOptions(Options):
    """How to reach a host. The host's key is always checked, and no password is ever asked for."""

    port: int | None = Field(None, ge=1, le=65535, description="The port; ssh's own default otherwise.")
    identity: str | None = Field(None, description="The private key's file.")
    known_hosts: str | None = Field(None, description="The file with the hosts' keys.")
    connect_timeout: Duration = Field(15.0, description="How long to wait for the connection.")


class RsyncOptions(Options):
    """What an rsync step may be told."""

    to: str = Field(
        description="Absolute path, `host:/path` or `user@host:/path`; the folder's content goes into it."
    )
    on_conflict: Literal["refuse", "backup", "version"] = Field(
        "refuse",
        description="When the target has a different file of the same name: deliver nothing; move the "
        "old file to .dittohead-backup/JOB/ there; or deliver everything beside it as PATH.v2.",
    )
    chmod: str | None = Field(None, description="rsync's --chmod, such as `D2775,F664`.")
    chown: str | None = Field(None, description="rsync's --chown, `user:group`.")
    perms: bool = Field(
        False,
        description="Keep the modes of files and folders. Else a new file has its own mode less the daemon's "
        "umask, so that one of mode 0600 is for its owner alone there too: see `umask` and `chmod`.",
    )
    umask: str | None = Field(
        None,
        description='On this host: what new files and folders lack, such as `"027"`, whatever modes the '
        "upload has: folders 0777 and files 0666 less this (0777 where they are programs). Group and setgid "
        "bit come from the folder that they are put into.",
    )
    xattrs: bool = Field(
        False,
        description="Keep extended attributes (`user.*`; the others only where both sides are root), and see "
        "that they are there. rsync's -X.",
    )
    acls: bool = Field(
        False,
        description="Keep access control lists, and with them the modes, and see that they are there. "
        "rsync's -A.",
    )
    hard_links: bool = Field(
        False,
        description="Names of one file stay names of one file, which is verified; otherwise each is a copy. "
        "rsync's -H.",
    )
    mkpath: bool = Field(
        False, description="Make all missing parts of the path; otherwise only its last one is made."
    )
    require_mount: str | None = Field(
        None, description="A local path that must be a mount point; otherwise the target is taken to be down."
    )
    bwlimit: Size | None = Field(None, description="Bytes a second at most.")
    timeout: Duration = Field(60.0, description="How long nothing may come through before it is an error.")
    ssh: SshOptions = Field(
        default_factory=lambda: SshOptions.model_validate({}), description="How to reach the host."
    )
    fsync: bool = Field(
        False,
        description="Over ssh: the remote system flushes each file to disk before it counts as delivered; "
        "rsync 3.2.4 or newer is required at both ends. A local target is always flushed.",
    )
    rsync_path: str | None = Field(None, description="The rsync program on the remote system.")

    @field_validator("to")
    @classmethod
    def _to(cls, value: str) -> str:
        if "::" in value.split("/")[0] or value.startswith("rsync://"):
            raise ValueError("rsync daemons cannot be used; write host:/path for ssh")
        host = _HOST.match(value)
        path = value[host.end() :] if host else value
        if not path.startswith("/"):
            raise ValueError("an absolute path, or host:/absolute/path, is required")
        return value

    @field_validator("umask", mode="before")
    @classmethod
    def _umask(cls, value: Any) -> Any:
        if isinstance(value, int):  # YAML reads 027 as a number of base 8
            raise ValueError('write it in quotes: umask: "027"')
        if isinstance(value, str) and not re.fullmatch(r"0?[0-7]{3}", value):
            raise ValueError('three digits from 0 to 7 are required, such as "027"')
        if isinstance(value, str) and int(value, 8) & 0o700:
            raise ValueError("it would be closed to the daemon itself; the first digit must be 0")
        return value

    @model_validator(mode="after")
    def _one_mode(self) -> RsyncOptions:
        if self.acls and self.chmod:
            raise ValueError("acls keeps the modes, which are part of the lists; chmod cannot change them")
        if self.umask and self.keeps_modes:
            raise ValueError("umask cannot stand beside perms, acls or chmod: give one of them")
        if self.umask and _HOST.match(self.to):
            raise ValueError('umask is not for targets over ssh; there write chmod: "D2750,F640"')
        return self

    @property
    def makes_with(self) -> int:
        """The umask of programs that deliver."""
        return int(self.umask, 8) if self.umask else UMASK

    @property
    def keeps_modes(self) -> bool:
        """Whether modes are the delivery's business."""
        return self.perms or self.acls or self.chmod is not None

    def keeps(self, source: Inputs) -> Keeps:
        """Return what is to be kept besides the content."""
        user, _, _ = place_of(self).host.rpartition("@")
        return Keeps(
            xattrs=self.xattrs,
            acls=self.acls,
            hard_links=self.hard_links,
            private=os.geteuid() == 0 and user in ("", "root"),
            # With chown alone, folders stay as the target makes them; what a step made has no times to keep.
            folder_times=source.made is None and (self.keeps_modes or not self.chown),
        )


@dataclass(frozen=True, kw_only=True)
class Destination:
    """Where a delivery goes."""

    host: str  #: "user@host"; "" for a local path
    path: str  #: absolute, without a final slash

    @property
    def argument(self) -> str:
        """It as rsync is given it."""
        return f"{self.host}:{self.path}/" if self.host else f"{self.path}/"

    def beside(self, number: int) -> Destination:
        """Return the place of a version; 1 is the place itself."""
        return self if number == 1 else Destination(host=self.host, path=f"{self.path}.v{number}")

    def uri(self, path: bytes) -> str:
        """Return the URI of a file at the place."""
        whole = quote_from_bytes(os.fsencode(self.path) + b"/" + path, safe="/")
        return f"ssh://{self.host}{whole}" if self.host else f"file://{whole}"


def place_of(options: RsyncOptions) -> Destination:
    """Return where a step delivers to."""
    host = _HOST.match(options.to)
    path = options.to[host.end() :] if host else options.to
    return Destination(host=host[0][:-1] if host else "", path="/" + path.strip("/"))


def fixed_part(written: Mapping[str, Any], place: Destination) -> str:
    """Return how far a place's path is config.yaml's own, before any name fills something in.

    Args:
        written: the options with their placeholders; {} where they are not known.
    """
    template = _HOST.sub("", str(written.get("to", "")), count=1)
    if not template.startswith("/"):
        return os.path.dirname(place.path)
    fixed, brace, _ = template.partition("{")
    if not brace and place.path == "/" + template.strip("/"):
        return place.path
    return "/" + fixed.rpartition("/")[0].strip("/")


def room_of(written: Mapping[str, Any], place: Destination) -> str:
    """Return the name of what may be full alone: a place up to where a folder's own name comes in.

    So a study that is full, or over its quota, holds up none of the others on its host or disk.

    Args:
        written: the options with their placeholders.
    """
    template = "/" + _HOST.sub("", str(written.get("to", "")), count=1).strip("/")
    parts = []
    for part, its in zip(place.path.split("/"), template.split("/"), strict=False):
        if _OWN.search(its):
            break
        parts.append(part)
    path = "/".join(parts) or "/"
    return f"{place.host}:{path}" if place.host else path


def arguments(options: RsyncOptions, place: Destination, keeps: Keeps) -> list[str]:
    """Return the program and the options that every pass of rsync shares.

    Args:
        place: a local path, or a host and a path there.
        keeps: what is kept besides content and times.
    """
    given = [
        PROBE.path(),
        "--times",
        "--dirs",
        "--sparse",
        "--from0",
        f"--timeout={max(int(options.timeout), 1)}",
    ]
    given += ["--perms"] if options.keeps_modes else []
    # What its owner may not read would be delivered so that nobody can compare it. Modes of directories
    # are the target's business (setgid study folders), not the upload's: what its umask makes of all bits.
    new = "Da+rwx,Fa+rwX" if options.umask else "Da+rwx,Fu+r"
    chmod = options.chmod or ("" if options.keeps_modes else new)
    given += [f"--chmod={chmod}"] if chmod else []
    given += ["--owner", "--group", f"--chown={options.chown}"] if options.chown else []
    given += [f"--bwlimit={max(options.bwlimit // 1024, 1)}"] if options.bwlimit else []
    own = options.keeps_modes or keeps.folder_times  # the folders of the files are sent as well
    given += [] if own else ["--no-implied-dirs", "--omit-dir-times"]
    wanted = {"--xattrs": keeps.xattrs, "--acls": keeps.acls, "--hard-links": keeps.hard_links}
    given += [option for option, is_wanted in wanted.items() if is_wanted]
    if place.host:
        given += ["--secluded-args", "--rsh=" + shlex.join([SSH.path(), *ssh_arguments(options.ssh)])]
        given += [f"--rsync-path={options.rsync_path}"] if options.rsync_path else []
        given += ["--fsync"] if options.fsync else []
    return given


def paths(root: Path, listed: Path, to: str) -> list[str | bytes]:
    """Return the arguments that say what goes where; they come last.

    Args:
        root: the directory that the names are relative to; absolute.
        listed: the list of names, each ending with NUL.
        to: the target as rsync takes it: a path, or "host:path".
    """
    return [f"--files-from={listed}", "--", os.fsencode(root) + b"/", os.fsencode(to)]


def ssh_arguments(ssh: SshOptions) -> list[str]:
    """Return ssh's arguments."""
    given = [
        "-oBatchMode=yes",
        "-oStrictHostKeyChecking=yes",
        f"-oConnectTimeout={max(int(ssh.connect_timeout), 1)}",
        "-oServerAliveInterval=15",
        "-oServerAliveCountMax=4",
    ]
    given += [f"-p{ssh.port}"] if ssh.port else []
    given += [f"-i{ssh.identity}", "-oIdentitiesOnly=yes"] if ssh.identity else []
    # In quotes: it may be a list of files.
    given += [f'-oUserKnownHostsFile="{ssh.known_hosts}"'] if ssh.known_hosts else []
    return given
