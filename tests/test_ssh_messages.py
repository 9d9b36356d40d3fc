"""Why a delivery over ssh fails, in plain words with the command that helps: each said by real programs.

A real sshd, the rsync that is installed, and where OLD_RSYNC names one, an older one too.
"""

from __future__ import annotations

import getpass
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dittohead.model.errors import ItemError, StepError, TargetError
from dittohead.system.process import Completed
from dittohead.workers.rsync.rsync_messages import failure
from dittohead.workers.rsync.ssh_messages import ACCOUNT, SSH, DeliveryPlace, explained, lines_of
from dittohead.workers.rsync.worker import RsyncOptions, RsyncWorker
from tests.support.context import LoneContext
from tests.support.sshd import Sshd, sshd
from tests.support.trees import tree

service = pytest.mark.service
ME = getpass.getuser()


@pytest.fixture(scope="module", params=["new", "old"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A server, and at both ends the rsync that is installed or an older one."""
    old = os.environ.get("OLD_RSYNC")
    if request.param == "old":
        if old is None:
            pytest.skip("OLD_RSYNC names no rsync of 3.2")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", f"{Path(old).parent}:{os.environ['PATH']}")
            with sshd(tmp_path_factory.mktemp("ssh") / "d") as running:
                yield running
        return
    with sshd(tmp_path_factory.mktemp("ssh") / "d") as running:
        yield running


class Far:
    """A folder to deliver, and the account it goes to."""

    def __init__(self, base: Path, server: Sshd) -> None:
        self.base, self.server = base, server
        tree(base / "x", {"a": "1", "b": "2"})

    async def error(self, to: str = "far", **more: Any) -> StepError:
        ssh = {**self.server.options, **more.pop("ssh", {})}
        host = more.pop("host", self.server.host)
        options = RsyncOptions.model_validate({"to": f"{host}:{self.base}/{to}/", "ssh": ssh, **more})
        with pytest.raises(StepError) as caught:
            await RsyncWorker().run(LoneContext(self.base, self.base / "x"), options)
        assert not [path for path in (self.base / to).rglob("*") if path.name == "b"]
        return caught.value

    def key(self, name: str, phrase: str = "") -> Path:
        path = self.base / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", phrase, "-f", path], check=True)
        return path


@pytest.fixture
def far(tmp_path: Path, server: Sshd) -> Iterator[Far]:
    allowed = (server.base / "authorized_keys").read_text()
    yield Far(tmp_path, server)
    (server.base / "authorized_keys").write_text(allowed)


def allow_only(server: Sshd, command: str) -> None:
    path = server.base / "authorized_keys"
    path.write_text(f'command="{command}" ' + (server.base / "client.pub").read_text())


def said(error: StepError, *words: str, kind: type[StepError] = TargetError) -> None:
    """See that the error is of the kind, and says all this."""
    assert type(error) is kind, error
    for word in words:
        assert word in str(error), (word, str(error))


# -- the host ----------------------------------------------------------------------------------


@service
async def test_an_unknown_host_key_comes_with_the_commands_that_make_it_known(far: Far) -> None:
    known = far.base / "known hosts"
    error = await far.error(ssh={"known_hosts": str(known)})
    said(error, "the host's key is not known here", f"sudo -u {ME} tee -a '{known}'", "ssh-keygen -lf -")
    # The very commands, but for the change of user.
    scan = f"ssh-keyscan -p {far.server.port} 127.0.0.1"
    assert f"{scan} | sudo" in error.hint
    subprocess.run(f"{scan} 2>/dev/null | tee -a '{known}' >/dev/null", shell=True, check=True)
    far.base.joinpath("far").mkdir()
    options = {**far.server.options, "known_hosts": str(known)}
    given = RsyncOptions.model_validate({"to": f"{far.server.host}:{far.base}/far/", "ssh": options})
    await RsyncWorker().run(LoneContext(far.base, far.base / "x"), given)
    assert (far.base / "far" / "a").read_text() == "1"


@service
async def test_a_changed_host_key_is_said_with_its_line_and_its_fingerprint(far: Far) -> None:
    other = far.key("other").with_suffix(".pub").read_text().split()
    known = far.base / "known_hosts"
    known.write_text(f"# a comment\n[127.0.0.1]:{far.server.port} {other[0]} {other[1]}\n")
    error = await far.error(ssh={"known_hosts": str(known)})
    print_ = subprocess.check_output(["ssh-keygen", "-lf", far.server.base / "host.pub"], text=True).split()[
        1
    ]
    said(error, "the host's key has changed", f"{known}, line 2", print_)
    said(error, f"sudo -u {ME} ssh-keygen -R '[127.0.0.1]:{far.server.port}' -f '{known}'")
    assert "@@@" not in str(error)


@service
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"ssh": {"port": 1}}, ["refuses connections at port 1", "Connection refused"]),
        ({"host": "x@no.such.host.invalid"}, ["no.such.host.invalid is not known", "getent hosts"]),
        ({"rsync_path": "/no/such/rsync"}, ["rsync is not installed there", "rsync_path"]),
        ({"rsync_path": "rsync-of-nobody"}, ["rsync is not installed there", "apt-get install rsync"]),
    ],
)
async def test_a_host_that_is_not_there_or_lacks_rsync(far: Far, given: Any, words: list[str]) -> None:
    said(await far.error(**given), *words)


# -- the key -----------------------------------------------------------------------------------


@service
async def test_a_key_that_ssh_does_not_use_is_named_with_what_helps(far: Far) -> None:
    """What ssh says last is that the host has refused us, which is the symptom."""
    opened = Path(shutil.copy(far.server.base / "client", far.base / "open"))
    opened.chmod(0o644)
    junk = tree(far.base / "j", {"junk": "junk\n"}) / "junk"
    junk.chmod(0o600)
    for made, words in (
        (opened, ["others may read it (mode 0644)", "sudo chmod 600 '{}'"]),
        (far.base / "none", ["the key {} does not exist", "ssh-keygen -t ed25519 -N '' -f '{}'"]),
        (junk, ["{} cannot be used as a private key"]),
        (far.key("strange"), ["the host refuses our key", "authorized_keys", "{}"]),
        (far.key("secret", phrase="secret"), ["the host refuses our key", "passphrase"]),
    ):
        error = await far.error(ssh={"identity": str(made)})
        said(error, *(word.format(made) for word in words))
        assert str(error).endswith("work goes on by itself")


# -- the account -------------------------------------------------------------------------------


@service
@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("/usr/sbin/nologin", ["the account is closed", "usermod -s /bin/sh"]),
        ('echo Welcome to lab1; exec sh -c \\"$SSH_ORIGINAL_COMMAND\\"', ["(Welcome to lab1)", "~/.bashrc"]),
        ("/bin/false", ["runs no commands (it ended with status 1)"]),
        ("internal-sftp", ["may only use sftp"]),
        ("rrsync /tmp", ["restricted to rrsync", "forbids rsync's option -s", "authorized_keys"]),
        ("rrsync -ro /tmp", ["lets the account read there, not write", "take -ro out"]),
    ],
)
async def test_an_account_that_is_closed_or_restricted_is_said_to_be(
    far: Far, command: str, words: list[str]
) -> None:
    """Most of it is printed where rsync expects rsync, so that rsync only finds that noise."""
    if command.startswith("rrsync") and shutil.which("rrsync") is None:
        pytest.skip("rrsync is not installed")
    allow_only(far.server, command)
    said(await far.error(), *words)


# -- the folder there --------------------------------------------------------------------------


@service
async def test_a_folder_that_is_missing_or_something_else_is_the_folders_own_fault(far: Far) -> None:
    said(await far.error("no/such"), "the target folder does not exist", "mkpath", kind=ItemError)
    (far.base / "file").write_text("x")
    said(await far.error("file/in"), "Not a directory", kind=ItemError)


@service
@pytest.mark.skipif(os.geteuid() != 0, reason="MOUNTING NEEDS ROOT: full and read-only targets left out")
async def test_a_full_or_read_only_disk_there_is_the_targets_fault(far: Far) -> None:
    (far.base / "x" / "a").write_bytes(os.urandom(3_000_000))
    full, closed = (far.base / name for name in ("full", "closed"))
    for disk in (full, closed):
        (disk / "out").mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)
    (closed / "out").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", closed], check=True)
    try:
        error = await far.error("full/out")
        said(error, "the target is full", "Make room there")
        assert isinstance(error, TargetError)
        assert (error.full, error.apart) == (True, True)
        said(await far.error("closed/out"), "read-only")
    finally:
        for disk in (full, closed):
            subprocess.run(["umount", "-l", disk], check=True)


# -- lines that no server here can be made to say ----------------------------------------------

WAY = DeliveryPlace(where="ada@h:/study/lab1/", again="dittohead retry J", login="ada@h", path="/study/lab1")


def test_a_command_is_told_from_the_words_around_it() -> None:
    """Anyone who copies it copies no prose: it stands in backquotes."""
    for saying in (*SSH, *ACCOUNT):
        prose = re.sub(r"`[^`]+`", "", saying.cure)
        assert not re.search(r"sudo|ssh-key|getent|ping |\{(ssh|scan|rerun|run)\}", prose), saying.cure
        assert "`" not in prose


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ssh: connect to host h port 22: Connection timed out", "does not answer at port 22"),
        ("ssh: connect to host h port 22: No route to host", "cannot be reached (No route to host)"),
        ("ssh: connect to host h port 22: Network is unreachable", "cannot be reached"),
        ("Connection timed out during banner exchange", "does not answer any more"),
        ("Timeout, server h not responding.", "does not answer any more"),
        ("kex_exchange_identification: read: Connection reset by peer", "closed the connection before"),
        ("Connection closed by 192.0.2.1 port 22", "closed the connection"),
        ("Received disconnect from 192.0.2.1 port 22:2: Too many authentication failures", "too many keys"),
        (
            "Unable to negotiate with 192.0.2.1 port 22: no matching host key type found. Their offer: ssh-rsa",
            "nothing in common",
        ),
        ("Bad owner or permissions on /srv/x/.ssh/config", "/srv/x/.ssh/config"),
        ("sh: 1: rsync: not found", "not installed there"),
        ("zsh:1: command not found: rsync", "not installed there"),
        ("rsync: Command not found.", "not installed there"),
        ("fish: Unknown command: rsync", "not installed there"),
        (
            "Your account has expired; please contact your system administrator.",
            "lets this account in no more",
        ),
        ("rsync: on remote machine: --fsync: unknown option", "too old for --fsync"),
    ],
)
def test_each_line_is_said_in_plain_words(line: str, words: str) -> None:
    found = explained(lines_of(line.encode()), WAY)
    assert found is not None
    assert words in str(found)
    assert found.hint


def ended(returncode: int, *lines: str) -> Completed:
    return Completed(
        argv=("rsync",), returncode=returncode, stdout=b"", stderr="\n".join(lines).encode(), seconds=0.1
    )


SUMMARY = "rsync error: some files/attrs were not transferred (see previous errors) (code 23) at main.c(1394)"


def test_the_cause_is_told_and_not_what_was_said_first() -> None:
    """A time that cannot be set is complained of before the file that cannot be written."""
    error = failure(
        ended(
            23,
            'rsync: [generator] failed to set times on "/study/lab1/.": Operation not permitted (1)',
            'rsync: [receiver] mkstemp "/study/lab1/.a.tif.8KpaR1" failed: Permission denied (13)',
            SUMMARY,
        ),
        WAY,
    )
    said(error, "the account ada@h may not write there", "/study/lab1", "retry J", kind=ItemError)
    assert "mkstemp" in error.what
    assert "failed to set times" not in error.what


def test_where_the_folder_itself_cannot_be_made_it_is_the_one_above_that_needs_rights() -> None:
    """There is nothing yet that rights could be given to."""
    line = 'rsync: [Receiver] mkdir "/study/lab1" failed: Permission denied (13)'
    said(
        failure(ended(11, line), WAY),
        "the account ada@h may not write there",
        "Give it write access to /study, then",
        "retry J",
        kind=ItemError,
    )


def test_all_refused_names_are_counted_and_five_named() -> None:
    """Not the first alone: they are renamed at once."""
    lines = [
        f'rsync: [receiver] mkstemp "/study/lab1/sub/.{name}.8KpaR1" failed: Invalid argument (22)'
        for name in ("a:b", "what?", "x*", "c|d", "<e>", 'say "hi"', "a:b")
    ]
    error = failure(ended(23, *lines, SUMMARY), WAY)
    said(
        error,
        "does not take 6 names: 'sub/a:b', 'sub/what?', 'sub/x*', 'sub/c|d', 'sub/<e>', ...",
        kind=ItemError,
    )


def test_a_file_name_that_reads_like_a_complaint_explains_nothing() -> None:
    """Names are the uploader's, and may hold any words."""
    name = "Host key verification failed."
    error = failure(
        ended(
            23,
            f'rsync: [sender] send_files failed to open "/x/{name}: No space left on device (28)": Permission '
            "denied (13)",
            SUMMARY,
        ),
        WAY,
    )
    assert type(error) is ItemError
    assert "key" not in error.what.replace(name, "")
    assert "is full" not in error.what
