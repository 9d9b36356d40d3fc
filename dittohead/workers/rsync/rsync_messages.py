"""What rsync says: its exit statuses, its complaints and its itemized lines, in our words."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from dittohead.model.errors import ItemError, MachineShort, StepError, TargetError, TransientError
from dittohead.model.text import counted
from dittohead.system.attributes import PathCounts
from dittohead.system.machine_faults import said_in
from dittohead.system.process import Completed
from dittohead.workers.rsync.ssh_messages import DeliveryPlace, explained, lines_of, shown

#: The exit statuses of an rsync that has come as far as single files.
_AMONG_FILES = (23, 24, 25)
#: How rsync's lines begin that say that, and not why.
_SYMPTOMS = ("rsync error:", "rsync: connection unexpectedly", "(see the rsync manpage", "@@@@")
#: What rsync's exit statuses mean, and which error each becomes. Source: rsync(1), EXIT VALUES.
_EXITS: dict[int, tuple[type[StepError], str]] = {
    1: (ItemError, "rsync did not understand its options"),
    2: (ItemError, "the remote rsync is not compatible"),
    3: (ItemError, "rsync could not select the files or directories"),
    4: (ItemError, "the remote rsync lacks a feature"),
    5: (TargetError, "the remote system could not start rsync"),
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
    35: (TransientError, "the remote daemon did not answer in time"),
    127: (TargetError, "the remote system has no rsync"),
    255: (TargetError, "the host cannot be reached or refuses us"),
}


@dataclass(frozen=True, kw_only=True)
class _Trouble:
    """What the system's words in rsync's own complaints mean."""

    words: tuple[str, ...]
    meaning: str
    cure: str
    kind: type[StepError] = TargetError
    full: bool = False
    about: re.Pattern[str] = re.compile("")  #: what has to be found in the complaint


#: Causes before symptoms: the first of these that was complained of is the one that is told.
_TROUBLES: tuple[_Trouble, ...] = (
    _Trouble(
        words=("No space left on device",),
        meaning="the target is full",
        cure="Make room there",
        full=True,
    ),
    _Trouble(
        words=("Disk quota exceeded",),
        meaning="the target's quota is used up",
        cure="Make room there, or have the quota raised",
        full=True,
    ),
    _Trouble(
        words=("Read-only file system",),
        meaning="the target is mounted read-only",
        cure="See why, and mount it for writing",
    ),
    _Trouble(
        words=("Stale file handle", "Transport endpoint is not connected"),
        meaning="the target's server has lost the mount",
        cure="Mount it again",
    ),
    _Trouble(
        words=("Input/output error",),
        meaning="the disk gives errors",
        cure="Look at the kernel's log there: `sudo dmesg`",
    ),
    _Trouble(
        words=("Permission denied",),
        meaning="{who} may not write there",
        cure="Give it write access to {path}, then: `{again}`",
        kind=ItemError,
    ),
    _Trouble(
        words=("Invalid argument", "File name too long", "Invalid or incomplete multibyte or wide character"),
        meaning="the target's file system does not take {names}",
        cure="Rename them and bring the folder again; or deliver to another file system",
        kind=ItemError,
    ),
    _Trouble(
        # What exFAT and some servers say of a name with : or ?; a missing folder ends rsync before any file.
        words=("No such file or directory",),
        meaning="the target does not take {names}",
        cure="Rename what its file system does not take (: ? * | < > and quotes), and bring it again; "
        "or deliver to another file system",
        kind=ItemError,
        about=re.compile(r"[:?*|<>\\]|\".*\".*\""),
    ),
    _Trouble(
        words=("File too large",),
        meaning="the target's file system holds no file that large: {names}",
        cure="Deliver to another file system (FAT holds 4 GiB)",
        kind=ItemError,
    ),
    _Trouble(
        words=("Not a directory", "Is a directory", "File exists"),
        meaning="something else lies there under the name of a folder or file: {names}",
        cure="See what lies there; then: `{again}`",
        kind=ItemError,
    ),
    _Trouble(
        words=("Operation not permitted",),
        meaning="the target does not let {who} write {names}",
        cure="See whether its file system takes such names, owners and modes, and who owns the folder; "
        "then: `{again}`",
        kind=ItemError,
    ),
    _Trouble(
        words=("Operation not supported",),
        meaning="the target's file system cannot hold what the step is to keep",
        cure="Deliver to another, or take xattrs and acls out of the step, have the daemon read config.yaml "
        "again, then: `{rerun}`",
        kind=ItemError,
    ),
)
#: The exit statuses it has when a process or memory was not available at this end.
_OWN = (11, 12, 13, 14, 22)
#: One complaint of rsync's: who says it and the system's words. What stands between may hold any name,
#: which must not be mistaken for the words themselves.
_COMPLAINT = re.compile(r"rsync: \[(?P<who>\w+)[^]]*\] (?P<about>.*): (?P<words>[^:\"]+) \((?P<errno>\d+)\)")
#: A complaint without a name in it.
_BARE = re.compile(r"rsync: (?:\[\w+[^]]*\] )?[\w ]+ failed: (?P<words>[^:\"]+) \((?P<errno>\d+)\)")
#: The name in a complaint, and what rsync calls a file that it is writing. Source: rsync's receiver.c.
_NAMED = re.compile(r"[^\"]*\"(?P<path>.*)\"(?: .*)?", re.DOTALL)
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.[A-Za-z0-9]{6}", re.DOTALL)
#: Names shown at most.
_SHOWN = 5


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

    def note(line: str) -> None:
        match = _ITEM.fullmatch(line)
        if match is not None:
            found.append(match[1])

    return note


#: A line of what a second pass finds: kind of change, kind of thing, nine marks, then its name.
_FOUND = re.compile(r"(?P<how>[<>ch.])(?P<what>[fdLDS])(?P<marks>.{9}) (?P<name>.*)", re.DOTALL)
#: Where the marks of the time, of the access control list and of the extended attributes stand.
_TIME, _ACL, _XATTR = 2, 7, 8


@dataclass
class Differences:
    """What a second pass finds at the remote system that is not as in the folder."""

    wrong: list[str] = field(default_factory=list)  #: of another content, or missing
    bare: list[str] = field(default_factory=list)  #: lack an attribute, a list or a link
    untimed: PathCounts = field(default_factory=PathCounts)  #: of another time

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


#: A line of --list-only: mode, size, date, time, name; what is not text in a name is \\#ooo.
_LISTED = re.compile(rb"\S{10,11} +[\d,]+ \d{4}/\d\d/\d\d \d\d:\d\d:\d\d (?P<name>.*)")
_ESCAPED = re.compile(rb"\\#([0-7]{3})")


def listed_names(said: bytes) -> list[bytes]:
    """Return the names of an rsync's --list-only, but for the folder itself."""
    found = [match["name"] for line in said.split(b"\n") if (match := _LISTED.fullmatch(line)) is not None]
    return [_ESCAPED.sub(lambda m: bytes([int(m[1], 8)]), name) for name in found if name != b"."]


#: That times cannot be set there, which is said at the end, and no reason not to deliver.
_NO_TIMES = re.compile(r"rsync: (?:\[\w+[^]]*\] )?failed to set times on .*")
_SUMMARY = re.compile(r"rsync error: .*")


def only_times_are_lost(ended: Completed) -> bool:
    """Tell whether an rsync has done all it should, but for times of what belongs to others there."""
    said = [line for line in ended.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    told = [line for line in said if not _SUMMARY.fullmatch(line)]
    return ended.returncode == 23 and bool(told) and all(_NO_TIMES.fullmatch(line) for line in told)


def failure(ended: Completed, way: DeliveryPlace) -> StepError:
    """Return the error that an rsync which did not succeed stands for."""
    clear = cause(ended, way)
    if clear is not None:
        return clear
    if ended.returncode in _OWN and (of := said_in(_detail(ended))):
        return MachineShort(f"rsync ended for want of {of}", of=of)
    kind, meaning = _EXITS.get(ended.returncode, (TransientError, "rsync ended unexpectedly"))
    return kind(f"{meaning} (rsync {ended.returncode}: {_detail(ended)})", where=way.where)


def cause(ended: Completed, way: DeliveryPlace) -> StepError | None:
    """Return the error that an rsync which did not succeed stands for; None: its words do not say why."""
    lines = lines_of(ended.stderr)
    complaints = [match for line in lines if (match := _complaint(line)) is not None]
    there = [match for match in complaints if match.groupdict().get("who") != "sender"]
    found = _missing(there, ended, way) or _troubled(there, way)
    # ssh's words stand before any of rsync's; a delivery that got as far as files has no such trouble.
    if found is None and ended.returncode not in _AMONG_FILES:
        found = explained(lines, way)
    return found


def is_vague(ended: Completed, way: DeliveryPlace) -> bool:
    """Tell whether an rsync's words do not say why it failed, or only that the remote system's are noise."""
    return cause(ended, way) is None or any("is your shell clean?" in line for line in lines_of(ended.stderr))


def _missing(complaints: list[re.Match[str]], ended: Completed, way: DeliveryPlace) -> StepError | None:
    if ended.returncode not in (3, 11, 12):
        return None
    if not any(match["words"] == "No such file or directory" for match in complaints):
        return None
    return ItemError(
        "the target folder does not exist",
        where=way.where,
        hint=f"Check the folder's name; or make it (or set mkpath: true), then: {way.again}",
    )


def _troubled(complaints: list[re.Match[str]], way: DeliveryPlace) -> StepError | None:
    for trouble in _TROUBLES:
        alike = [
            match
            for match in complaints
            if match["words"] in trouble.words and trouble.about.search(match.groupdict().get("about") or "")
        ]
        if alike:
            return _error(trouble, alike, way)
    return None


def _error(trouble: _Trouble, alike: list[re.Match[str]], way: DeliveryPlace) -> StepError:
    values = {
        "who": f"the account {way.login}" if way.login else "the daemon",
        "path": _written_to(alike[0][0], way.path),
        "names": _names(alike, way.path),
        "again": way.again,
        "rerun": way.again.replace("retry", "rerun"),
    }
    what = f"{trouble.meaning.format_map(values)} ({shown(alike[0][0])})"
    hint = trouble.cure.format_map(values)
    if trouble.kind is TargetError:
        hint += "; work goes on by itself"
        # A host holds many places; of a local one a quota may be one group's alone.
        apart = trouble.full and (bool(way.login) or "quota" in trouble.meaning)
        return TargetError(what, where=way.where, hint=hint, full=trouble.full, apart=apart)
    return trouble.kind(what, where=way.where, hint=hint)


def _written_to(line: str, path: str) -> str:
    """Return the directory that was to be written to; the one above where the last could not be made."""
    whole = path.rstrip("/")
    return os.path.dirname(whole) or "/" if f'mkdir "{whole}" failed' in line else path


def _names(complaints: list[re.Match[str]], place: str) -> str:
    """Return what was complained of: how many, and the first few."""
    paths = [
        match["path"] for c in complaints if (match := _NAMED.fullmatch(c.groupdict().get("about") or ""))
    ]
    names = list(dict.fromkeys(_original(path, place) for path in paths))
    if not names:
        return "some names"
    more = ", ..." if len(names) > _SHOWN else ""
    return f"{counted(len(names), 'name')}: {', '.join(repr(name) for name in names[:_SHOWN])}{more}"


def _original(path: str, place: str) -> str:
    """Return the name below the target of what rsync complains of."""
    head, slash, tail = path.removeprefix(place).lstrip("/").rpartition("/")
    temporary = _TEMPORARY.fullmatch(tail)
    return head + slash + (temporary["name"] if temporary else tail)


def _complaint(line: str) -> re.Match[str] | None:
    return _COMPLAINT.fullmatch(line) or _BARE.fullmatch(line)


def _detail(ended: Completed) -> str:
    """Return the line that says most: not rsync's closing summary."""
    lines = lines_of(ended.stderr)
    telling = [line for line in lines if not line.startswith(_SYMPTOMS)]
    return shown((telling or lines or [ended.complaint])[0])
