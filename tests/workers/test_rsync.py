"""rsync: exactly the manifest's files, verified, nothing different ever lost; local and over a real sshd."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dittohead.contract.worker import Done, VerifyContext
from dittohead.model.errors import ItemError, StepError, TargetError
from dittohead.model.records import Location
from dittohead.system import attributes
from dittohead.workers.rsync.worker import PROBE, RsyncOptions, RsyncWorker
from tests.support.context import LoneContext, source_of
from tests.support.length import budget
from tests.support.sshd import Sshd, sshd
from tests.support.trees import fifo, read_tree, symlink, tree

NASTY: dict[str | bytes, Any] = {
    "plain.txt": "plain",
    "-e sh x": "dash",
    "a:b": "colon",
    "new\nline": "newline",
    b"bad\xff\xfe": b"bytes",
    "100%": "percent",
    "ümläut 😀": "unicode",
    "x" * 255: "long",
    "empty.bin": b"",
    "sub": {"deeper": {"big.bin": os.urandom(300_000)}},
    "hollow": {},
}

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("ssh") / "d") as running:
        yield running


class Rig:
    """A payload, a target directory, and the worker between them: `local` or `ssh`."""

    def __init__(self, base: Path, server: Sshd | None) -> None:
        self.base, self.server = base, server
        self.payload = base / "payload"
        self.target = base / "target"
        self.target.mkdir()
        self.worker = RsyncWorker()

    def options(self, to: str = "out", **more: Any) -> RsyncOptions:
        path = f"{self.target}/{to}/"
        if self.server is not None:
            more = {"ssh": self.server.options, **more}
            path = f"{self.server.host}:{path}"
        return RsyncOptions.model_validate({"to": path, **more})

    def context(self, **more: Any) -> LoneContext:
        return LoneContext(self.base, self.payload, **more)

    async def deliver(self, to: str = "out", **more: Any) -> LoneContext:
        ctx = self.context()
        await self.worker.run(ctx, self.options(to, **more))
        return ctx

    def out(self, to: str = "out") -> Path:
        return self.target / to


@pytest.fixture(params=["local", "ssh"])
def rig(request: pytest.FixtureRequest, tmp_path: Path, server: Sshd) -> Rig:
    return Rig(tmp_path, server if request.param == "ssh" else None)


async def test_every_awkward_name_arrives_as_it_was(rig: Rig) -> None:
    """Leading dashes, colons, newlines, bytes that are not text, 255-byte names, empty directories."""
    tree(rig.payload, NASTY)
    ctx = await rig.deliver()
    assert read_tree(rig.out()) == read_tree(rig.payload)
    assert (rig.out() / "hollow").is_dir()
    assert len(ctx.locations) == len(read_tree(rig.payload))
    assert {event.type.value for event in ctx.events} == {"replication", "fixity check"}


async def test_delivering_twice_changes_nothing(rig: Rig) -> None:
    """A resumed or repeated step is harmless, and the payload is never touched."""
    tree(rig.payload, NASTY)
    before = {p: p.stat().st_mtime_ns for p in rig.payload.rglob("*")}
    await rig.deliver()
    times = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in rig.out().rglob("*") if p.is_file()}
    await rig.deliver()
    assert {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in rig.out().rglob("*") if p.is_file()} == times
    assert {p: p.stat().st_mtime_ns for p in rig.payload.rglob("*")} == before


async def test_what_is_not_in_the_manifest_is_not_delivered(rig: Rig) -> None:
    """Files and links that came after the claim stay out."""
    tree(rig.payload, {"a": "1"})
    source = source_of(rig.payload)
    tree(rig.payload, {"late": "2", "l": symlink("/etc/passwd"), "p": fifo()})
    ctx = rig.context(source=source)
    await rig.worker.run(ctx, rig.options())
    assert sorted(os.listdir(rig.out())) == ["a"]


async def test_a_different_file_at_the_target_refuses_the_whole_folder(rig: Rig) -> None:
    """Nothing is delivered, and the person is told which files."""
    tree(rig.payload, {"a.txt": "new", "b.txt": "b"})
    tree(rig.out(), {"a.txt": "old"})
    with pytest.raises(ItemError) as caught:
        await rig.deliver()
    assert "'a.txt'" in str(caught.value)
    assert "nothing was replaced" in str(caught.value)
    assert read_tree(rig.out()) == {b"a.txt": b"old"}


async def test_a_different_file_of_the_same_size_and_time_is_seen(rig: Rig) -> None:
    """Size and time alone would take them for the same."""
    tree(rig.payload, {"a.txt": "new"})
    tree(rig.out(), {"a.txt": "old"})
    for place in (rig.payload, rig.out()):
        os.utime(place / "a.txt", (1000, 1000))
    with pytest.raises(ItemError, match="other files under these names"):
        await rig.deliver()


async def test_identical_files_are_no_conflict(rig: Rig) -> None:
    """The same bytes with another time: left as they are, and verified."""
    tree(rig.payload, {"a.txt": "same", "b.txt": "b"})
    tree(rig.out(), {"a.txt": "same"})
    os.utime(rig.out() / "a.txt", (1000, 1000))
    await rig.deliver()
    assert read_tree(rig.out()) == read_tree(rig.payload)


async def test_backup_keeps_every_generation(rig: Rig) -> None:
    """Three different uploads of one name: two older ones are kept, each under its job."""
    for job, text in (("JOB1", "one"), ("JOB2", "two"), ("JOB3", "three")):
        tree(rig.payload, {"a.txt": text})
        ctx = rig.context(job_id=job)
        await rig.worker.run(ctx, rig.options(on_conflict="backup"))
    found = read_tree(rig.out())
    assert found == {
        b"a.txt": b"three",
        b".dittohead-backup/JOB2/a.txt": b"one",
        b".dittohead-backup/JOB3/a.txt": b"two",
    }


async def test_version_delivers_beside(rig: Rig) -> None:
    """The old copy is untouched; a resumed step goes on with the version it chose."""
    tree(rig.payload, {"a.txt": "one"})
    await rig.deliver(on_conflict="version")
    tree(rig.payload, {"a.txt": "two"})
    ctx = await rig.deliver(on_conflict="version")
    assert read_tree(rig.out()) == {b"a.txt": b"one"}
    assert read_tree(rig.out("out.v2")) == {b"a.txt": b"two"}
    ctx.again()
    await rig.worker.run(ctx, rig.options(on_conflict="version"))
    assert not rig.out("out.v3").exists()


async def test_a_missing_target_folder_is_said_and_not_made(rig: Rig) -> None:
    """A mistyped study must not create a new one; mkpath makes it when wanted."""
    tree(rig.payload, {"a": "1"})
    with pytest.raises(ItemError, match="target folder does not exist"):
        await rig.deliver("no/such/place")
    assert not (rig.target / "no").exists()
    await rig.deliver("no/such/place", mkpath=True)
    assert read_tree(rig.target / "no/such/place") == {b"a": b"1"}


async def test_a_flipped_bit_at_the_target_is_found_by_verify(rig: Rig) -> None:
    """`dittohead verify` reads the target again."""
    tree(rig.payload, {"a.txt": "hello", "b.txt": "b"})
    ctx = await rig.deliver()
    path = rig.out() / "a.txt"
    times = path.stat()
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    reports: list[tuple[bool, str, str]] = []
    locations: list[Location] = ctx.locations
    await rig.worker.verify(
        VerifyContext(
            locations=lambda: iter(locations),
            source=ctx.source,
            env=ctx.env,
            report=lambda *report: reports.append(report),
        ),
        rig.options(),
    )
    assert ["a.txt" in where for good, where, _ in reports if not good] == [True]


async def test_corruption_during_delivery_is_found_before_the_step_is_done(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An rsync that says all went well while a byte is wrong: the second pass says otherwise."""
    tree(rig.payload, {"a.txt": "hello"})
    liar = tmp_path / "bin" / "rsync"
    liar.parent.mkdir()
    liar.write_text(
        f'#!/bin/sh\n/usr/bin/rsync "$@" || exit $?\n'
        f'case " $* " in *" --dry-run "*) ;; *) printf X | dd of={rig.out()}/a.txt conv=notrunc 2>/dev/null;; esac\n'
    )
    liar.chmod(0o755)
    monkeypatch.setenv("PATH", f"{liar.parent}:{os.environ['PATH']}")
    with pytest.raises(Exception, match="differ from the manifest") as caught:
        await rig.deliver()
    assert type(caught.value).__name__ == "TransientError"


async def test_cancelling_leaves_no_process_and_the_next_try_completes(rig: Rig) -> None:
    """A stop in the middle of a large file: no child remains, the repeated step finishes the job."""
    tree(rig.payload, {"big.bin": os.urandom(8_000_000)})
    task = asyncio.create_task(rig.deliver(bwlimit="1MB"))
    async with asyncio.timeout(20):
        while not [p for p in rig.target.rglob("*") if p.is_file() and p.stat().st_size > 0]:
            await asyncio.sleep(0.01)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert subprocess.run(["pgrep", "-f", f"files-from={rig.base}"], check=False).returncode == 1
    await rig.deliver()
    assert read_tree(rig.out()) == read_tree(rig.payload)


async def test_an_rsync_killed_from_outside_is_tried_again(rig: Rig) -> None:
    """SIGKILL by the kernel or an admin: a temporary fault."""
    tree(rig.payload, {"big.bin": os.urandom(8_000_000)})
    task = asyncio.create_task(rig.deliver(bwlimit="1MB"))
    async with asyncio.timeout(20):
        while not [p for p in rig.target.rglob("*") if p.is_file() and p.stat().st_size > 0]:
            await asyncio.sleep(0.01)
    pids = subprocess.check_output(["pgrep", "-f", f"^/usr/bin/rsync .*files-from={rig.base}"]).split()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    with pytest.raises(Exception, match=r"rsync|ended|connection|lost") as caught:
        await task
    assert type(caught.value).__name__ == "TransientError"


async def test_a_host_that_is_down_pauses_the_target(tmp_path: Path) -> None:
    """Connection refused is the host's fault, no folder's."""
    with sshd(tmp_path / "ssh") as server:
        options = RsyncOptions.model_validate({"to": f"{server.host}:{tmp_path}/t/", "ssh": server.options})
    tree(tmp_path / "payload", {"a": "1"})
    worker = RsyncWorker()
    with pytest.raises(TargetError, match="refuses connections"):
        await worker.run(LoneContext(tmp_path, tmp_path / "payload"), options)
    assert worker.target(options) == server.host


async def test_the_far_side_flushes_when_asked_to(tmp_path: Path, server: Sshd) -> None:
    """`fsync: true` reaches the remote rsync: seen in the calls it makes."""
    called = tmp_path / "called"
    program = tmp_path / "rsync"
    program.write_text(f'#!/bin/sh\nexec strace -f -A -o {called} -e fsync {PROBE.path()} "$@"\n')
    program.chmod(0o755)
    payload = tree(tmp_path / "x", {"a": "1"})
    options = RsyncOptions.model_validate(
        {
            "to": f"{server.host}:{tmp_path}/t/",
            "ssh": server.options,
            "rsync_path": str(program),
            "fsync": True,
        }
    )
    await RsyncWorker().run(LoneContext(tmp_path, payload), options)
    assert read_tree(tmp_path / "t") == {b"a": b"1"}
    assert "fsync(" in called.read_text()


async def test_an_unknown_host_key_is_refused(tmp_path: Path, server: Sshd) -> None:
    """Host keys are always checked."""
    empty = tmp_path / "known_hosts"
    empty.touch()
    tree(tmp_path / "payload", {"a": "1"})
    options = RsyncOptions.model_validate(
        {"to": f"{server.host}:{tmp_path}/t/", "ssh": {**server.options, "known_hosts": str(empty)}}
    )
    with pytest.raises(TargetError, match="key is not known here"):
        await RsyncWorker().run(LoneContext(tmp_path, tmp_path / "payload"), options)


async def test_a_vanished_mount_pauses_the_target(tmp_path: Path) -> None:
    """An unmounted study disk must not be filled through its empty mount point."""
    tree(tmp_path / "payload", {"a": "1"})
    (tmp_path / "mnt").mkdir()
    options = RsyncOptions.model_validate(
        {"to": f"{tmp_path}/mnt/x/", "mkpath": True, "require_mount": f"{tmp_path}/mnt"}
    )
    with pytest.raises(TargetError, match="nothing is mounted"):
        await RsyncWorker().run(LoneContext(tmp_path, tmp_path / "payload"), options)
    assert os.listdir(tmp_path / "mnt") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="MOUNTING A SMALL DISK NEEDS ROOT: full-disk test left out")
async def test_a_full_target_pauses_it(tmp_path: Path) -> None:
    """No space left is systemic: the jobs wait for room."""
    tree(tmp_path / "payload", {"a": os.urandom(3_000_000)})
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)
    try:
        with pytest.raises(TargetError, match="the target is full"):
            await RsyncWorker().run(
                LoneContext(tmp_path, tmp_path / "payload"),
                RsyncOptions.model_validate({"to": f"{disk}/x/"}),
            )
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="CHANGING OWNERS NEEDS ROOT: permission scheme left out")
async def test_a_study_folders_permission_scheme_can_be_expressed(tmp_path: Path) -> None:
    """Mode 3750 setgid study folders with group-writable raw data, as labs have them."""
    study = tmp_path / "study"
    study.mkdir()
    os.chown(study, 0, 100)
    study.chmod(0o3750)
    tree(tmp_path / "payload", {"a.txt": "1", "sub": {"b.txt": "2"}})
    (tmp_path / "payload" / "a.txt").chmod(0o600)
    scheme = "Du+rwx,Dg+rwsx,Do+rx,Do-w,Fu+rw,Fu-x,Fg+rw,Fg-x,Fo+r,Fo-wx"
    await RsyncWorker().run(
        LoneContext(tmp_path, tmp_path / "payload"),
        RsyncOptions.model_validate({"to": f"{study}/raw/", "chmod": scheme, "chown": "root:users"}),
    )
    assert stat.S_IMODE(study.stat().st_mode) == 0o3750
    modes = {
        p.name: (oct(stat.S_IMODE(p.stat().st_mode)), p.stat().st_gid) for p in (study / "raw").rglob("*")
    }
    assert modes == {"a.txt": ("0o664", 100), "sub": ("0o2775", 100), "b.txt": ("0o664", 100)}


@pytest.mark.parametrize(
    ("umask", "folders", "plain", "program"),
    [("027", 0o2750, 0o640, 0o750), ("007", 0o2770, 0o660, 0o770), ("0022", 0o2755, 0o644, 0o755)],
)
async def test_new_files_get_the_modes_of_the_umask_whatever_they_had(
    tmp_path: Path, umask: str, folders: int, plain: int, program: int
) -> None:
    """Group and setgid bit come from the folder that they are put into: no right to set them is needed."""
    study = tmp_path / "study"
    study.mkdir()
    if os.geteuid() == 0:
        os.chown(study, -1, 100)
    study.chmod(0o3750)
    payload = tmp_path / "payload"
    tree(payload, {"private": "1", "open": "2", "run": "3", "sub": {"deep": {"a.txt": "4"}}, "empty": {}})
    for name, mode in {"private": 0o600, "open": 0o666, "run": 0o700, "sub": 0o700, "empty": 0o700}.items():
        (payload / name).chmod(mode)
    await RsyncWorker().run(
        LoneContext(tmp_path, payload),
        RsyncOptions.model_validate({"to": f"{study}/raw/x/", "umask": umask, "mkpath": True}),
    )
    made = [study / "raw", *(study / "raw").rglob("*")]
    assert len(made) == 9
    assert {p.stat().st_gid for p in made} == {study.stat().st_gid}
    assert {stat.S_IMODE(p.stat().st_mode) for p in made if p.is_dir()} == {folders}
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in made if p.is_file()}
    assert modes == {"private": plain, "open": plain, "a.txt": plain, "run": program}
    assert stat.S_IMODE(study.stat().st_mode) == 0o3750


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"umask": 23}, 'in quotes: umask: "027"'),  # what YAML makes of 027
        ({"umask": "rwx"}, 'such as "027"'),
        ({"umask": "0777"}, "closed to the daemon itself"),
        ({"umask": "027", "chmod": "F664"}, "cannot stand beside"),
        ({"umask": "027", "perms": True}, "cannot stand beside"),
        ({"umask": "027", "acls": True}, "cannot stand beside"),
        ({"umask": "027", "to": "host:/a/b"}, "over ssh"),
    ],
)
def test_a_umask_that_cannot_be_meant_is_refused(more: dict[str, object], said: str) -> None:
    """With what to write instead."""
    with pytest.raises(ValueError, match=said):
        RsyncOptions.model_validate({"to": "/a/b", **more})


@pytest.mark.parametrize("to", ["relative/path", "host::module/x", "rsync://h/x", "host:relative"])
def test_targets_that_cannot_work_are_refused_at_the_check(to: str) -> None:
    """Before the daemon starts, not when the first folder comes."""
    with pytest.raises(ValueError, match="required|cannot be used"):
        RsyncOptions.model_validate({"to": to})


# -- what a folder has besides its content -----------------------------------------------------


def adorned(root: Path) -> Path:
    """Make a folder with attributes, an access control list, hard links and times of its own."""
    tree(root, {"a.txt": "a", "acl.txt": "l", "one.txt": "same", "sub": {"b.txt": "b"}, "hollow": {}})
    os.link(root / "one.txt", root / "sub" / "two.txt")
    os.link(root / "one.txt", root / "three.txt")
    os.setxattr(root / "a.txt", "user.camera", b"Leica")
    os.setxattr(root / "sub", "user.box", b"7" * 100)
    subprocess.run(["setfacl", "-m", "u:12345:r", root / "acl.txt"], check=True)
    for number, path in enumerate([root / "sub" / "b.txt", root / "sub", root / "hollow", root]):
        os.utime(path, ns=(0, (1_000_000_000 + number) * 10**9 + 123_456_789))
    return root


LEFT = (
    "not delivered: extended attributes of 1 file and 1 folder, access control lists of 1 file, "
    "2 hard links (a copy each)"
)


def replications(ctx: LoneContext) -> list[tuple[str, str]]:
    return [(event.outcome, event.detail) for event in ctx.events if event.type.value == "replication"]


async def test_what_a_folder_has_besides_its_content_is_said_when_it_is_not_delivered(rig: Rig) -> None:
    """In the step's own line, which the notice, the page and the receipt show, and in the plan."""
    adorned(rig.payload)
    ctx = rig.context()
    result = await rig.worker.run(ctx, rig.options())
    assert isinstance(result, Done)
    assert result.detail.endswith(LEFT)
    assert replications(ctx) == [("warning", result.detail)]
    planned = [one async for one in rig.worker.plan(rig.context(), rig.options())]
    assert ", ".join(one.what for one in planned if one.action == "leave") == LEFT.removeprefix(
        "not delivered: "
    )


async def test_what_is_asked_for_is_kept_and_compared(rig: Rig) -> None:
    """Extended attributes of files and folders, access control lists, hard links."""
    adorned(rig.payload)
    ctx = await rig.deliver(xattrs=True, acls=True, hard_links=True)
    assert os.getxattr(rig.out() / "a.txt", "user.camera") == b"Leica"
    assert os.getxattr(rig.out() / "sub", "user.box") == b"7" * 100
    lists = [os.getxattr(at / "acl.txt", attributes.ACLS[0]) for at in (rig.payload, rig.out())]
    assert lists[0] == lists[1]
    names = ("one.txt", "sub/two.txt", "three.txt")
    assert len({(rig.out() / name).stat().st_ino for name in names}) == 1
    [(outcome, detail)] = replications(ctx)
    assert outcome == "success"
    assert "not delivered" not in detail
    assert ctx.events[-1].detail.endswith("extended attributes, access control lists, hard links compared")


async def test_times_of_files_and_folders_arrive(rig: Rig) -> None:
    """Also those of folders, of empty ones, and of the folder itself, without being asked for."""
    adorned(rig.payload)
    await rig.deliver()
    for path in ("sub/b.txt", "sub", "hollow", "."):
        assert (rig.out() / path).stat().st_mtime_ns == (rig.payload / path).stat().st_mtime_ns, path
    assert stat.S_IMODE((rig.out() / "sub").stat().st_mode) == 0o755


async def test_another_time_of_a_file_that_was_there_is_said(rig: Rig) -> None:
    """It is the same content, and is left as it is."""
    tree(rig.payload, {"a.txt": "a", "b.txt": "b"})
    tree(rig.out(), {"a.txt": "a"})
    os.utime(rig.out() / "a.txt", (1000, 1000))
    ctx = await rig.deliver()
    assert replications(ctx)[0][1].endswith("; not delivered: times of 1 file")
    assert (rig.out() / "a.txt").stat().st_mtime == 1000


async def test_an_interrupted_delivery_gets_its_links_and_attributes_in_the_next_try(rig: Rig) -> None:
    """One name of a file was there already, and a file from before has no attributes yet."""
    adorned(rig.payload)
    tree(rig.out(), {"one.txt": "same", "a.txt": "a"})
    ctx = await rig.deliver(xattrs=True, acls=True, hard_links=True)
    assert os.getxattr(rig.out() / "a.txt", "user.camera") == b"Leica"
    names = ("one.txt", "sub/two.txt", "three.txt")
    assert len({(rig.out() / name).stat().st_ino for name in names}) == 1
    assert len(ctx.locations) == 6


@pytest.mark.parametrize("lost", ["--xattrs", "--acls", "--hard-links"])
async def test_an_rsync_that_does_not_keep_what_it_should_is_found_out(
    rig: Rig, lost: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says that all went well: what lies there is looked at all the same."""
    adorned(rig.payload)
    forgetful = tmp_path / "bin" / "rsync"
    forgetful.parent.mkdir()
    forgetful.write_text(
        '#!/bin/bash\ncase " $* " in *" --dry-run "*) exec /usr/bin/rsync "$@";; esac\n'
        f'args=(); for arg; do [ "$arg" = {lost} ] || args+=("$arg"); done\nexec /usr/bin/rsync "${{args[@]}}"\n'
    )
    forgetful.chmod(0o755)
    monkeypatch.setenv("PATH", f"{forgetful.parent}:{os.environ['PATH']}")
    with pytest.raises(ItemError, match="lack extended attributes, access control lists or hard links"):
        await rig.deliver(xattrs=True, acls=True, hard_links=True)


@pytest.mark.parametrize("policy", ["refuse", "backup", "version"])
@pytest.mark.parametrize(("path", "what"), [("sub", "folder"), ("sub/a.txt", "file")])
async def test_what_belongs_to_others_at_the_target_keeps_its_times(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str, path: str, what: str
) -> None:
    """Nobody may set the time of another's folder or file; that is said, and is not a reason to fail."""
    tree(rig.payload, {"sub": {"a.txt": "a"}})
    tree(rig.out(), {"sub": {"a.txt": "a"}})
    os.utime(rig.out() / "sub", (rig.payload / "sub").stat()[7:9])
    os.utime(rig.out() / "sub" / "a.txt", (rig.payload / "sub" / "a.txt").stat()[7:9])
    refused = tmp_path / "bin" / "rsync"
    refused.parent.mkdir()
    refused.write_text(
        '#!/bin/sh\n/usr/bin/rsync "$@" || exit $?\n'
        f'case " $* " in *" --dry-run "*) exit 0;; esac\ntouch -d @1000 {rig.out()}/{path}\n'
        f"echo 'rsync: [generator] failed to set times on \"{rig.out()}/{path}\": Operation not permitted (1)' >&2\n"
        "echo 'rsync error: some files/attrs were not transferred (code 23) at main.c(1338)' >&2\nexit 23\n"
    )
    refused.chmod(0o755)
    monkeypatch.setenv("PATH", f"{refused.parent}:{os.environ['PATH']}")
    ctx = await rig.deliver(on_conflict=policy)
    assert replications(ctx)[0][1].endswith(f"; not delivered: times of 1 {what}")


async def test_the_inboxs_own_access_list_is_not_the_uploaders(tmp_path: Path) -> None:
    """Where a default list lets the daemon in, every upload has it: nothing of the uploader's is left."""
    rig = Rig(tmp_path, None)
    rig.payload.mkdir()
    subprocess.run(["setfacl", "-d", "-m", f"u:{os.geteuid()}:rwx", rig.payload], check=True)
    tree(rig.payload, {"a.txt": "a", "sub": {"b.txt": "b"}})
    assert attributes.acls(os.listxattr(rig.payload / "a.txt"))
    ctx = await rig.deliver()
    assert replications(ctx)[0][0] == "success"


def test_lists_and_changed_modes_do_not_go_together() -> None:
    """The mode's group bits are the list's mask."""
    with pytest.raises(ValueError, match="chmod cannot change them"):
        RsyncOptions.model_validate({"to": "/a/b", "acls": True, "chmod": "F664"})


# -- links in the way --------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["refuse", "backup", "version"])
@pytest.mark.parametrize("same", [True, False])
async def test_no_planted_link_is_read_or_written_through(tmp_path: Path, policy: str, same: bool) -> None:
    """As the last part of the path: neither names nor contents of what lies behind it are told."""
    rig = Rig(tmp_path, None)
    tree(rig.payload, {"secret.txt": "guess", "new.txt": "n"})
    private = tree(tmp_path / "private", {"secret.txt": "guess" if same else "truth"})
    rig.out().symlink_to(private)
    with pytest.raises(ItemError) as caught:
        await rig.deliver(on_conflict=policy)
    assert '"out" is a link' in str(caught.value)
    assert "secret.txt" not in str(caught.value)
    assert read_tree(private) == {b"secret.txt": b"guess" if same else b"truth"}


async def test_a_link_put_in_place_after_the_look_is_not_written_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What rsync writes goes into the directory that was looked at, whatever its name leads to."""
    rig = Rig(tmp_path, None)
    tree(rig.payload, {"a.txt": "a"})
    private = tree(tmp_path / "private", {})
    plants = tmp_path / "bin" / "rsync"
    plants.parent.mkdir()
    plants.write_text(
        '#!/bin/sh\ncase " $* " in *" --times "*)\n'
        f'mv {rig.out()} {rig.out()}.away; ln -s {private} {rig.out()};;\nesac\nexec /usr/bin/rsync "$@"\n'
    )
    plants.chmod(0o755)
    monkeypatch.setenv("PATH", f"{plants.parent}:{os.environ['PATH']}")
    with pytest.raises(ItemError, match="is a link"):
        await rig.deliver()
    assert read_tree(private) == {}
    assert read_tree(rig.target / "out.away") == {b"a.txt": b"a"}


@pytest.mark.parametrize(
    ("template", "linked", "owner", "followed"),
    [
        ("{base}/disk/{{study}}/raw/{{name}}/", "disk", 12345, True),
        ("{base}/disk/{{study}}/raw/{{name}}/", "disk/lab1", 0, True),
        ("{base}/disk/{{study}}/raw/{{name}}/", "disk/lab1", 12345, False),
        ("{base}/disk/{{study}}/raw/{{name}}/", "disk/lab1/raw", 12345, False),
        ("{base}/disk/{{study}}/raw/{{name}}/", "disk/lab1/raw", 0, True),
        ("{base}/disk/{{study}}/raw/{{name}}/", "disk/lab1/raw/x", 0, False),
        ("{base}/disk/lab1/raw/", "disk/lab1/raw", 0, True),
        ("{base}/disk/lab1/raw/", "disk/lab1/raw", 12345, False),
        ("{base}/disk/lab1/raw/", "disk/lab1", 12345, True),
    ],
)
async def test_links_of_administrators_are_followed(
    tmp_path: Path, template: str, linked: str, owner: int, followed: bool
) -> None:
    """Whatever stands in config.yaml itself; below that, what root or the daemon's account has linked."""
    if os.geteuid() != 0:
        pytest.skip("only root can make another's link")
    tree(tmp_path / "payload", {"a.txt": "a"})
    real = tree(tmp_path / "real", {})
    written = template.format(base=tmp_path)
    to = written.replace("{study}", "lab1").replace("{name}", "x")
    link = tmp_path / linked
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(real)
    os.chown(link, owner, owner, follow_symlinks=False)
    ctx = LoneContext(tmp_path, tmp_path / "payload")
    ctx.written = {"to": written}
    given = RsyncOptions.model_validate({"to": to, "mkpath": True})
    if followed:
        await RsyncWorker().run(ctx, given)
        assert b"a" in read_tree(real).values()
    else:
        with pytest.raises(ItemError, match="is a link"):
            await RsyncWorker().run(ctx, given)
        assert read_tree(real) == {}


async def test_folders_keep_the_targets_times_where_groups_are_set_and_that_is_said(tmp_path: Path) -> None:
    """With `chown` alone folders are made as the target makes them."""
    rig = Rig(tmp_path, None)
    tree(rig.payload, {"sub": {"a.txt": "a"}, "hollow": {}})
    ctx = await rig.deliver(chown=f":{os.getegid()}")
    assert replications(ctx)[0][1].endswith("; not delivered: times of 2 folders")


@pytest.mark.parametrize("mkpath", budget([False, True], False))
async def test_over_ssh_a_new_rsync_writes_through_no_planted_link(
    tmp_path: Path, server: Sshd, mkpath: bool
) -> None:
    """It is the remote rsync that decides; older ones follow the link, as the documentation says."""
    if os.geteuid() != 0 or tuple(map(int, (PROBE.version() or "0").split(".")[:3])) < (3, 5, 0):
        pytest.skip("this rsync follows it, or only root can make another's link")
    rig = Rig(tmp_path, server)
    tree(rig.payload, {"a.txt": "a"})
    private = tree(tmp_path / "private", {})
    rig.out().symlink_to(private)
    os.chown(rig.out(), 12345, 12345, follow_symlinks=False)
    with pytest.raises(StepError):
        await rig.deliver(mkpath=mkpath)
    assert read_tree(private) == {}
