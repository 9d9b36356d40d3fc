"""A drop box of mode 3773, a daemon of one uid, an uploader of another, and what must always hold.

As root the daemon runs as uid 60000, and anyone who uploads as 60001, a member of group 60000 with umask
002; otherwise both are the person who runs the tests. The `Uploader` is a process that keeps each folder it
has made open: it can change it also in processing/, which is closed to it.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
import mmap
import os
import pickle
import resource
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic

from dittohead.folders.stations import fit
from dittohead.model.paths import path_bytes
from dittohead.model.text import display
from dittohead.system.process import sweep
from tests.support.daemon import Site
from tests.support.trees import tree
from tests.support.wheel import installed, site_of

TOP = Path(__file__).parent.parent.parent
ROOT = os.geteuid() == 0
DAEMON = 60000 if ROOT else os.geteuid()
UPLOADER = 60001 if ROOT else os.geteuid()
STATIONS = ("inbox", "processing", "done", "failed")
_MODES = {"inbox": 0o3773, "processing": 0o700, "done": 0o750, "failed": 0o750, "state": 0o700}
_ENV = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
#: Another interpreter than the virtualenv's own finds everything too.
_ENV["PYTHONPATH"] = f"{TOP}:{Path(pydantic.__file__).parents[1]}"
_HUGE = 1 << 40  #: larger files are not read
Deed = tuple[Any, ...]  #: what is done in a folder: a function, and its arguments relative to the folder


def _as(uid: int, *groups: int) -> dict[str, Any]:
    """Return the arguments that make a subprocess another user's, where that can be."""
    return {"user": uid, "group": uid, "extra_groups": list(groups)} if ROOT else {}


@functools.cache
def _there() -> dict[str, Any]:
    """Return how the daemon and its commands are run: from the wheel, by an interpreter that may be another's."""
    packages = Path(pydantic.__file__).parents[1]
    env = {**_ENV, "PYTHONPATH": f"{site_of(installed())}:{packages}"}
    return {"env": env, "cwd": "/", **_as(DAEMON)}


@functools.cache
def python() -> str:
    """Return an interpreter that the other uids may run, with all we need; "" when there is none."""
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for program in filter(None, (sys.executable, shutil.which(name, path="/usr/bin:/usr/local/bin"))):
        argv = [program, "-P", "-c", "import dittohead.cli, pyvips, tests.support.hostile"]
        with contextlib.suppress(PermissionError, subprocess.CalledProcessError):
            subprocess.run(argv, env=_ENV, cwd="/", capture_output=True, check=True, **_as(DAEMON))
            return program
    return ""


#: Pipelines by the folder's name; @ stands for the directory that holds root/, target/ and meet/.
CONFIG = """
root: .
limits: {jobs: 200, command: 200, rsync: 200, checksum: 4}
retry: {attempts: 3, first: 10ms, most: 20ms}
watch: {interval: 200ms, stale_after: STALE}
space: {floor: 0}
pipelines:
  hold: {match: "hold-.*", steps: [{command: {argv: [sh, -c, "exit 75"], poll: 1h}}]}
  none:
    match: "none-.*"
    steps:
      - command: &meet
          name: meet
          argv: [sh, -c, 'touch "$0/at-$1"; while ! test -e "$0/go-$1"; do sleep 0.02; done', "@/meet", "{name}"]
  before: {match: "before-.*", steps: [command: *meet, rsync: &to {to: "@/target/{name}", timeout: 1s}]}
  check: {match: "check-.*", steps: [command: *meet, checksum: {}]}
  during: {match: "during-.*", steps: [rsync: {to: "@/target/{name}", timeout: 3s, bwlimit: 1MB}]}
  after: {match: "after-.*", steps: [rsync: *to, command: *meet]}
  bare: {match: "bare-.*", steps: [rsync: {to: "@/target/{name}", timeout: 60s}]}
  skip: {match: "(?s)skip-.*", links: skip, steps: [checksum: {}, rsync: *to]}
  images:
    match: "img-.*"
    steps: [convert: {tile: 64}, checksum: {}, rsync: *to, {name: pyramids, from: convert, rsync: {to: "@/target/iiif-{name}"}}]
  all: {match: "(?s).*", steps: [checksum: {}, rsync: *to]}
"""

#: What people and programs call things, and what might be taken for something else.
AWKWARD = [os.fsencode(name) for name in (
    "a\nb", "\r", "a\tb", "\x1b[2J", "-rf", "--delete", "a:b", "host:path", "::", "%41", "%", "'", '"', "$(id)",
    "`id`", "\\", "a\\nb", "*", "?", "[a]", "~", "{name}", "{{", "😀", "...", "..a", " ", "a ", " a", "A", "a", "é",
    "e\u0301", "n" * 255, "é" * 127, "#a", ";", ".dittohead-partial", ".dittohead-backup", "manifest.jsonl", "files",
    ".DS_Store", "Thumbs.db", "@eaDir", "._a", ".rsync-filter", ".cvsignore", "lost+found", "a.reason.txt", "a.v2",
    "No space left on device", "Permission denied (13)", "canary.txt",
)] + [b"\xff\xfe", b"\xed\xa0\x80", b"a\x80b"]  # fmt: skip

# -- what lies in a folder -------------------------------------------------------------------


@dataclass(frozen=True)
class Thing:
    """One name of a folder, as it must still be at the end."""

    kind: int  #: stat.S_IFMT
    mode: int
    mtime_ns: int
    size: int
    content: bytes  #: SHA-256 of a file, target of a link, number of a device


def snapshot(top: Path | bytes) -> dict[bytes, Thing]:
    """Return everything below a directory, itself as b"."; no link is followed, no depth is too deep."""
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    found = {b".": _thing(os.fstat(fd), b"")}
    stack = [(fd, b"", iter(os.listdir(fd)))]
    while stack:
        fd, prefix, names = stack[-1]
        text = next(names, None)
        if text is None:
            os.close(stack.pop()[0])
            continue
        name, content = os.fsencode(text), b""
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if stat.S_ISREG(status.st_mode):
            content = _digest(name, fd)
        elif stat.S_ISLNK(status.st_mode):
            content = os.fsencode(os.readlink(name, dir_fd=fd))
        elif stat.S_ISDIR(status.st_mode):
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            stack.append((inner, prefix + name + b"/", iter(os.listdir(inner))))
        else:
            content = b"%d" % status.st_rdev
        found[prefix + name] = _thing(status, content)
    return found


def _thing(status: os.stat_result, content: bytes) -> Thing:
    kind = stat.S_IFMT(status.st_mode)
    size = status.st_size if kind == stat.S_IFREG else 0
    return Thing(kind, stat.S_IMODE(status.st_mode), status.st_mtime_ns, size, content)


def _digest(name: bytes, fd: int) -> bytes:
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=fd)
    with open(file, "rb", buffering=0) as opened:
        if os.fstat(file).st_size > _HUGE:  # holes
            return b"huge"
        return hashlib.file_digest(opened, "sha256").digest()


def files_of(found: Mapping[bytes, Thing]) -> dict[bytes, str]:
    """Return {path: SHA-256} of the regular files: what a manifest holds."""
    return {path: thing.content.hex() for path, thing in found.items() if thing.kind == stat.S_IFREG}


def specials_of(found: Mapping[bytes, Thing]) -> list[bytes]:
    """Return the paths of what is neither a file nor a directory."""
    return [path for path, thing in found.items() if thing.kind not in (stat.S_IFREG, stat.S_IFDIR)]


def deliverable(found: Mapping[bytes, Thing]) -> dict[bytes, str]:
    """Return what a delivery holds: each file with its SHA-256, and the empty directories."""
    parents = {os.path.dirname(path) for path in found}
    empty = [p for p, thing in found.items() if thing.kind == stat.S_IFDIR and p not in parents and p != b"."]
    return files_of(found) | dict.fromkeys(empty, "")


# -- anyone who uploads -------------------------------------------------------------------------

_opened: dict[bytes, int] = {}
_kept: list[Any] = []


def serve() -> None:
    """Do what is asked on standard input, and answer: an uploader's whole life."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    raise_file_limit()
    with contextlib.suppress(EOFError):
        while True:
            folder, function, *args = pickle.load(sys.stdin.buffer)
            try:
                if folder is not None:
                    os.fchdir(_opened[folder])
                answer = (True, function(*args))
            except Exception as error:
                answer = (False, error)
            pickle.dump(answer, answers)
            answers.flush()


def raise_file_limit() -> None:
    """Let this process open as many files as it may: one for each level of a tree."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _build(hidden: Path, name: bytes, what: Mapping[str | bytes, Any]) -> None:
    os.mkdir(hidden)
    _opened[name] = os.open(hidden, os.O_RDONLY | os.O_DIRECTORY)
    tree(hidden, what)


def write(path: str, data: bytes, mode: str = "wb") -> None:
    """Write a file again, or with another mode over what it holds."""
    with open(path, mode) as file:
        file.write(data)


def sparse(path: str, size: int) -> None:
    """Leave a file of that size that takes no room."""
    with open(path, "wb") as file:
        file.truncate(size)


def sock(path: str) -> None:
    """Leave a socket."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path)


def chain(depth: int, name: str = "d") -> None:
    """Make directories below each other with a file in the last, longer than any path may be."""
    for _ in range(depth):
        os.mkdir(name)
        os.chdir(name)
    write("leaf.txt", b"deep")


def wide(count: int) -> None:
    """Make that many files side by side."""
    for number in range(count):
        os.mknod(f"{number:06}", 0o664 | stat.S_IFREG)


def lease(path: str) -> None:
    """Hold a file as Samba does for its clients: who opens it without waiting is refused."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    _kept.append(os.open(path, os.O_RDWR))
    fcntl.fcntl(_kept[-1], fcntl.F_SETLEASE, fcntl.F_WRLCK)


def let_go() -> None:
    """Hold no folder, no lease and no mapping any more."""
    for held in (*_opened.values(), *_kept):
        held.close() if isinstance(held, mmap.mmap) else os.close(held)
    _opened.clear()
    _kept.clear()


def map_page(path: str, always: bool = False) -> None:
    """Map a file and write to its page, once or always: while it is dirty, its times tell of nothing."""
    with open(path, "r+b") as file:
        _kept.append(mmap.mmap(file.fileno(), 0))
    _kept[-1][0:1] = _kept[-1][0:1]
    if always:
        threading.Thread(target=_scribble, args=_kept[-1:], daemon=True).start()


def _scribble(page: mmap.mmap) -> None:
    while True:
        page[0:1] = page[0:1]


def write_page(data: bytes) -> None:
    """Write through the mapping."""
    _kept[-1][0 : len(data)] = data


class Uploader:
    """Somebody of another uid than the daemon's, who keeps every folder open that he has made."""

    def __init__(self, inbox: Path) -> None:
        argv = [python(), "-P", "-c", "from tests.support.hostile import serve; serve()"]
        given = {"cwd": inbox, "env": _ENV, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen(argv, umask=0o002, **given, **_as(UPLOADER, DAEMON))

    def do(self, folder: bytes | None, *deed: Any) -> Any:
        """Let him call a function, standing in a folder, and return what comes of it."""
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: PT018
        pickle.dump((folder, *deed), self._process.stdin)
        self._process.stdin.flush()
        good, value = pickle.load(self._process.stdout)
        if not good:
            raise value
        return value

    def close(self) -> None:
        """Let him go, with all that he holds."""
        self._process.kill()
        self._process.communicate()


# -- the drop box ----------------------------------------------------------------------------


class Box(Site):
    """A site that another uid uploads to, with secrets around it that no delivery may hold.

    Beside its root lie the target, meet/ (where steps wait for the tests), and what is of no concern to it.
    """

    def __init__(self, base: Path, config: str, more: str = "") -> None:
        raise_file_limit()
        self.base, self.target, self.meet = base, base / "target", base / "meet"
        super().__init__(base / "root", config.replace("@", str(base)) + more)
        self.secret = secrets.token_hex(16)
        self.canary = base / "outside" / "canary.txt"
        for place, mode in _MODES.items():
            self._own(self.root / place, mode)
        for path in (self.root, self.target, self.meet):
            self._own(path, 0o755)
        places = ("outside", "root/state", "root/processing/hold-other")
        for path in [base / place / "canary.txt" for place in places]:
            self._own(path.parent, 0o700)
            path.write_text(self.secret)
            self._own(path, 0o600)
        self.others = base / "outside" / "others.txt"
        self.others.write_text("another user's")
        self._own(self.others, 0o600)
        tree(base / "sibling", {"a.txt": "a", "sub": {"b.txt": "b"}})
        self._around = self._look_around()
        self.uploaded: dict[bytes, dict[bytes, Thing]] = {}  #: what was handed over, by folder
        self.hidden: dict[bytes, Path] = {}  #: where a folder lies while it is uploaded
        self._count = 0
        self.uploader = Uploader(self.root / "inbox")

    def _own(self, path: Path, mode: int) -> None:
        if not path.is_file():
            path.mkdir(parents=True, exist_ok=True)
        os.chown(path, DAEMON, DAEMON if ROOT else -1)
        path.chmod(mode)

    def _look_around(self) -> Any:
        places = ("outside", "sibling", "root/processing/hold-other")
        canary = (self.root / "state" / "canary.txt").read_text()
        return sorted(os.listdir(self.base)), canary, [snapshot(self.base / place) for place in places]

    # -- the daemon, as its own user ---------------------------------------------------------

    @property
    def _argv(self) -> list[str]:
        return [python(), "-P", "-m", "dittohead", "--config", str(self.config)]

    def start(self, *, wait: bool = True) -> None:
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [*self._argv, "run"], stdout=log, stderr=log, start_new_session=True, **_there()
            )
        began = len(self.events("watch.armed"))
        if wait:
            self.until(lambda: len(self.events("watch.armed")) > began or self._dead())

    def run(self, *arguments: str, check: bool = True, **more: Any) -> subprocess.CompletedProcess[str]:
        given = {"capture_output": True, "text": True, "timeout": 60, "check": False, **_there(), **more}
        said = subprocess.run([*self._argv, *arguments], **given)
        assert not check or said.returncode == 0, said.stdout + said.stderr
        return said

    # -- uploading ---------------------------------------------------------------------------

    def prepare(self, name: str | bytes, what: Mapping[str | bytes, Any], *deeds: Deed) -> bytes:
        """Let a folder be uploaded, dotted, and things be done in it; return its name."""
        folder = os.fsencode(name)
        self._count += 1
        self.hidden[folder] = self.root / "inbox" / f".up-{self._count}"
        self.uploader.do(None, _build, self.hidden[folder], folder, what)
        self.change(folder, *deeds)
        return folder

    def publish(self, folder: bytes, *last: Deed) -> None:
        """Let it be handed over, and things be done in it in the last moment before."""
        self.uploaded[folder] = snapshot(self.hidden[folder])
        self.change(folder, *last)
        self.uploader.do(None, os.rename, self.hidden[folder], self.path("inbox", folder))

    def upload(self, name: str | bytes, what: Mapping[str | bytes, Any], *deeds: Deed) -> bytes:
        """Upload and hand over."""
        folder = self.prepare(name, what, *deeds)
        self.publish(folder)
        return folder

    def change(self, folder: bytes, *deeds: Deed) -> None:
        """Let things be done in a folder, wherever it lies.

        {canary} stands for the secret's path, {spare} and {gone} for dotted names in the inbox.
        """
        aside = str(self.hidden[folder]).replace
        known = {"canary": self.canary, "outside": self.canary.parent}
        known |= {name: aside(".up-", f".{name}-") for name in ("spare", "gone")}
        for function, *args in deeds:
            filled = [a.format(**known) if isinstance(a, str) else a for a in args]
            self.uploader.do(folder, function, *filled)

    # -- what came of it ---------------------------------------------------------------------

    def path(self, station: str, folder: bytes) -> Path:
        return self.root / station / os.fsdecode(folder)

    def stations_of(self, folder: bytes) -> list[str]:
        """Return every station that holds the name."""
        return [station for station in STATIONS if os.path.lexists(self.path(station, folder))]

    def until_over(self, *folders: bytes, timeout_s: float = 60) -> None:
        """Wait until each lies in done/ or failed/."""
        over = (["done"], ["failed"])
        self.until(lambda: all(self.stations_of(f) in over for f in folders) or self._dead(), timeout_s)

    def reason(self, folder: bytes) -> str:
        """Return the reason beside a failed folder; "" where there is none."""
        path = self.path("failed", fit(folder, b".reason.txt"))
        return path.read_text() if path.exists() else ""

    def traces(self, folder: bytes) -> list[str]:
        """Return the log's lines with a traceback that are about a folder, or about none."""
        found = []
        for line in self.log.read_text().rpartition("\n")[0].splitlines():
            fields = json.loads(line) if line.startswith("{") else {"exception": line}
            ours = fields.get("name", display(folder)) == display(folder)
            if ours and {"exception", "exc_info"} & {*fields}:
                found.append(line)
        return found

    def check(self, folder: bytes, end: str) -> None:
        """It lies where it must, alone and as it was uploaded; a delivery is what the manifest says."""
        assert self.stations_of(folder) == [end], self.reason(folder)
        found = self.uploaded[folder]
        assert snapshot(self.path(end, folder)) == found
        assert self.traces(folder) == []
        if end == "failed":
            assert "\nWhat:   " in self.reason(folder)
        else:
            delivered = snapshot(self.target / os.fsdecode(folder))
            assert deliverable(delivered) == deliverable(found)
            assert [path for path in files_of(delivered) if delivered[path].mode & 0o6000] == []
            assert self._manifest(folder) == files_of(found)

    def _manifest(self, folder: bytes) -> dict[bytes, str]:
        (receipt,) = (r for r in self.receipts() if r["folder"] == os.fsdecode(folder))
        return {path_bytes(file): file["sha256"] for file in receipt["manifest"]["files"]}

    def leaks(self) -> list[Path]:
        """Return the files of the target, work/ and receipts/ that hold the secret."""
        places = (self.target, self.root / "work", self.root / "receipts")
        files = (path for place in places for path in place.rglob("*") if path.is_file())
        return [path for path in files if self.secret.encode() in path.read_bytes()]

    def check_calm(self) -> None:
        """The daemon works on; nothing outside the folders was read or changed."""
        folder = self.upload(f"plain-{self._count}", {"a.txt": "plain"})
        self.until(lambda: self.stations_of(folder) == ["done"] or self._dead())
        self.check(folder, "done")
        assert self.leaks() == []
        assert self._look_around() == self._around

    def clear(self) -> None:
        """Remove what has ended, for the next folders of the same names."""
        places = [self.base / place for place in ("root/done", "root/failed", "root/receipts", "target")]
        subprocess.run(["rm", "-rf", *(path for place in places for path in place.iterdir())], check=True)
        self.uploader.do(None, let_go)
        self.uploaded.clear()

    def close(self) -> None:
        """End everybody."""
        self.uploader.close()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        sweep(self.root)


@contextlib.contextmanager
def box(stale_after: str = "1d", watch: str = "", more: str = "") -> Iterator[Box]:
    """A drop box with a running daemon, until the block ends.

    Args:
        watch: more keys of `watch:`, each after a comma.
        more: more of config.yaml.
    """
    # pytest's own directories are closed to others, and /tmp may be no real file system.
    base = Path(tempfile.mkdtemp(prefix="hostile-", dir="/var/tmp"))
    base.chmod(0o755)
    made = Box(base, CONFIG.replace("STALE", stale_after + watch), more)
    try:
        made.start()
        yield made
    finally:
        made.close()
        subprocess.run(["sh", "-c", 'chmod -R u+rwX "$0"; rm -rf "$0"', base], check=True)
