"""What rsync says: its exit statuses, its complaints and its itemized lines, in our words."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from dittohead.attributes import Tally
from dittohead.errors import ItemError, MachineShort, StepError, TargetError, TransientError
from dittohead.process import Completed
from dittohead.wants import said_in

#: What rsync's exit statuses mean, and which error each becomes. Source: rsync(1), EXIT VALUES.
_EXITS: dict[int, tuple[type[StepError], str]] = {
    1: (ItemError, "rsync did not understand its options"),
    2: (ItemError, "the far side's rsync is not compatible"),
    3: (ItemError, "rsync could not select the files or directories"),
    4: (ItemError, "the far side's rsync lacks a feature"),
    5: (TargetError, "the far side could not start rsync"),
    6: (TransientError, "rsync's daemon could not log"),
    10: (TransientError, "the connection failed"),
    11: (TransientError, "reading or writing failed"),
    12: (TransientError, "the connection broke off"),
    13: (TransientError, "rsync gave up"),
    14: (TransientError, "rsync's processes lost each other"),
    20: (TransientError, "rsync was interrupted"),
    21: (TransientError, "rsync's processes lost each other"),
    22: (TransientError, "rsync had too little memory"),
    23: (ItemError, "some files could not be delivered"),
    24: (ItemError, "files vanished from the folder while they were delivered"),
    25: (ItemError, "rsync stopped at its limit of deletions"),
    30: (TransientError, "nothing came through for too long"),
    35: (TransientError, "the far side's daemon did not answer in time"),
    127: (TargetError, "the far side has no rsync"),
    255: (TargetError, "the host cannot be reached or refuses us"),
}
#: What the far end's disk says, in rsync's own complaints; the source's disk is the daemon's.
_TARGET_SAYS: dict[str, str] = {
    "No space left on device": "the target is full",
    "Disk quota exceeded": "the target's quota is used up",
    "Read-only file system": "the target is mounted read-only",
    "Stale file handle": "the target's server has lost the mount",
    "Transport endpoint is not connected": "the target's mount is broken",
    "Input/output error": "the disk gives errors",
}
#: What ssh says when it gives up; whole lines, since rsync's may hold any name. Source: OpenSSH,
#: sshconnect.c and sshconnect2.c.
_SSH_SAYS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"ssh: connect to host \S+ port \d+: Connection refused"), "the host refuses connections"),
    (re.compile(r"\S+: Permission denied \([a-z,-]+\)\."), "the host refuses our key"),
    (re.compile(r"Host key verification failed\."), "the host's key is not the known one"),
)
#: The exit statuses rsync has when ssh gave up.
_SSH_EXITS = (12, 255)
#: Those it has when a process or memory could not be had at this end.
_OWN = (11, 12, 13, 14, 22)
#: One complaint of rsync's: who says it and the system's words. What stands between may hold any name,
#: which must not be taken for the words themselves.
_COMPLAINT = re.compile(r"rsync: \[(?P<who>\w+)[^]]*\] .*: (?P<words>[^:\"]+) \((?P<errno>\d+)\)")
#: A complaint without a name in it.
_BARE = re.compile(r"rsync: (?:\[\w+[^]]*\] )?[\w ]+ failed: (?P<words>[^:\"]+) \((?P<errno>\d+)\)")


class Lines:
    """Cuts a stream into lines."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line, self._rest = on_line, b""

    def __call__(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._on_line(line.decode("utf-8", "backslashreplace"))


#: A file whose content would be sent: ">f..." or "<f...", eleven marks, then its name.
_ITEM = re.compile(r"[<>c][fLDS][.+?cstpoguax]{9} (.*)", re.DOTALL)


def changed(found: list[str]) -> Callable[[str], None]:
    """Collect the names of files whose content would be sent. Source: rsync(1), --itemize-changes."""

    def look(line: str) -> None:
        match = _ITEM.fullmatch(line)
        if match is not None:
            found.append(match[1])

    return look


#: A line of what a second pass finds: kind of change, kind of thing, nine marks, then its name.
_FOUND = re.compile(r"(?P<how>[<>ch.])(?P<what>[fdLDS])(?P<marks>.{9}) (?P<name>.*)", re.DOTALL)
#: Where the marks of the time, of the access control list and of the extended attributes stand.
_TIME, _ACL, _XATTR = 2, 7, 8


@dataclass
class Differences:
    """What a second pass finds at the far side that is not as in the folder."""

    wrong: list[str] = field(default_factory=list)  #: of another content, or missing
    bare: list[str] = field(default_factory=list)  #: lack an attribute, a list or a link
    untimed: Tally = field(default_factory=Tally)  #: of another time

    def __call__(self, line: str) -> None:
        """Take in an itemized line. Source: rsync(1), --itemize-changes."""
        match = _FOUND.fullmatch(line)
        if match is None:
            return
        marks, name = match["marks"], match["name"]
        if match["how"] in "<>c":
            self.wrong.append(name)
            return
        if match["how"] == "h" or marks[_ACL] == "a" or marks[_XATTR] == "x":
            self.bare.append(name)
        if marks[_TIME] in "tT" and name != "./":  # the target's own folder may be others' as well
            self.untimed.add(is_dir=match["what"] == "d")


#: That times cannot be set there, which is said at the end, and no reason not to deliver.
_NO_TIMES = re.compile(r"rsync: (?:\[\w+[^]]*\] )?failed to set times on .*")
_SUMMARY = re.compile(r"rsync error: .*")


def only_times_are_lost(ended: Completed) -> bool:
    """Tell whether an rsync has done all it should, but for times of what belongs to others there."""
    said = [line for line in ended.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    told = [line for line in said if not _SUMMARY.fullmatch(line)]
    return ended.returncode == 23 and bool(told) and all(_NO_TIMES.fullmatch(line) for line in told)


def failure(ended: Completed, where: str, again: str) -> StepError:
    """Return the error that an rsync which did not succeed stands for.

    Args:
        where: the target, as people know it.
        again: the command that tries the step again.
    """
    said = ended.stderr.decode("utf-8", "replace")
    detail = _detail(said) or ended.complaint
    complaints = [match for line in said.splitlines() if (match := _complaint(line)) is not None]
    for match in complaints:
        meaning = _TARGET_SAYS.get(match["words"], "")
        if meaning and match.groupdict().get("who") != "sender":
            full = match["words"] in ("No space left on device", "Disk quota exceeded")
            return TargetError(f"{meaning} (rsync: {detail})", where=where, full=full)
    for pattern, meaning in _SSH_SAYS if ended.returncode in _SSH_EXITS else ():
        if any(pattern.fullmatch(line.strip()) for line in said.splitlines()):
            return TargetError(f"{meaning} (rsync: {detail})", where=where)
    said_there = {match["words"] for match in complaints if match.groupdict().get("who") != "sender"}
    if "No such file or directory" in said_there and ended.returncode in (3, 11, 12):
        return ItemError(
            "the target folder does not exist",
            where=where,
            hint=f"Check the folder's name; or make it (or set mkpath: true), then: {again}",
        )
    if "Permission denied" in said_there:
        return ItemError(
            f"the daemon may not write there (rsync: {detail})",
            where=where,
            hint=f"Give it write access, then: {again}",
        )
    if "Operation not supported" in said_there:
        return ItemError(
            f"the target's file system cannot hold what the step is to keep (rsync: {detail})",
            where=where,
            hint="Deliver to another, or take xattrs and acls out of the step, have the daemon read "
            f"config.yaml again, then: {again.replace('retry', 'rerun')}",
        )
    if ended.returncode in _OWN and (of := said_in(detail)):
        return MachineShort(f"rsync ended for want of {of}", of=of)
    kind, meaning = _EXITS.get(ended.returncode, (TransientError, "rsync ended unexpectedly"))
    return kind(f"{meaning} (rsync {ended.returncode}: {detail})", where=where)


def _complaint(line: str) -> re.Match[str] | None:
    return _COMPLAINT.fullmatch(line) or _BARE.fullmatch(line)


def _detail(said: str) -> str:
    """Return the line that says most: not rsync's closing summary."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [
        line for line in lines if not line.startswith(("rsync error:", "rsync: connection unexpectedly"))
    ]
    return (telling or lines or [""])[0][:300]
