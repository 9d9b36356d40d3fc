"""Each set-up of docs/permissions.md, and what an uploader types by docs/drop-folder.md, typed by whom it is for.

On a machine with a real systemd and a real sshd, from a home that is closed to others: see tests/support/town.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, Block, blocks
from tests.support.town import Town, town

pytestmark = [pytest.mark.rest, pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(300)]

PERMISSIONS, DROPPING, INSTALL = (DOCS / f"{name}.md" for name in ("permissions", "drop-folder", "install"))
STATIONS = ("inbox", "processing", "done", "failed", "work", "receipts")
CONFIG = """
root: /srv/dittohead
space: {floor: 0}
pipelines:
  measurements:
    match: "(?P<study>[A-Za-z0-9]+)-.+"
    steps: [rsync: {to: "/study/{study}/raw/{name}/"}]
"""
DROP_IN = "[Service]\nReadWritePaths=-/study\n"
MEASURED = {"raw/plate.csv": b"1,2\n" * 99, "run.log": b"ok\n"}
#: Undoes what a test has had typed.
RESET = r"""
systemctl stop dittohead
systemctl reset-failed dittohead || true
rm -rf /etc/ssh/sshd_config.d/dittohead.conf /etc/tmpfiles.d/dittohead.conf /etc/systemd/system/dittohead.service.d
rm -rf /srv/dittohead/.ssh /srv/dittohead/*/* /srv/dittohead/inbox/.l* /study /home/away/lab1-* /home/alice/lab1-*
gpasswd -d alice dittohead >/dev/null 2>&1 || true
setfacl -b /srv/dittohead/inbox
systemd-tmpfiles --create dittohead.conf
install -d -o dittohead -m 755 /study/lab1/raw
systemctl reload ssh
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with town(tmp_path_factory.mktemp("town") / "m") as made:
        yield made


@pytest.fixture
def here(built: Town) -> Town:
    """The service as installed, with a target on this machine."""
    with built.sshd_read_again():
        built.there.run("bash", "-euc", RESET)
    start(built, CONFIG)
    return built


def start(here: Town, config: str) -> None:
    here.write("/etc/dittohead/config.yaml", config)
    here.write("/etc/systemd/system/dittohead.service.d/site.conf", DROP_IN)
    here.there.run("systemctl", "daemon-reload")
    begun = here.there.run("systemctl", "restart", "dittohead", check=False)
    assert begun.returncode == 0, here.there.journal()[-2000:]


def below(page: Path, title: str, language: str = "sh") -> list[str]:
    """Return the commands that stand under a heading of a page."""
    text = page.read_text()
    (heading,) = re.finditer(rf"^## {re.escape(title)}$", text, re.MULTILINE)
    first = text.count("\n", 0, heading.start()) + 1
    later = text.find("\n## ", heading.end())
    last = text.count("\n", 0, later) + 1 if later >= 0 else text.count("\n") + 1

    def stands(block: Block) -> bool:
        return first < block.line <= last and block.language == language

    return [block.text for block in blocks(page) if stands(block)]


def typed(language: str = "sh") -> list[str]:
    """Return what an uploader types."""
    return below(DROPPING, "What an uploader types", language)


def by_sftp(here: Town, account: str, lines: str, *, check: bool = True) -> str:
    return here.types(
        "away", f"sftp -b - {account}@ingest.example.org <<'END'\n{lines}END\n", check=check
    ).stdout


def named(text: str, name: str) -> str:
    return text.replace("lab1-run42", name)


def delivered(here: Town, name: str = "lab1-run42") -> None:
    """Wait until a folder is done, and see that all of it is at its study."""
    here.arrived(name)
    place = here.files / "study/lab1/raw" / name
    assert {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*") if p.is_file()} == MEASURED


def private(here: Town, who: str, name: str = "lab1-run42") -> None:
    """Put a folder into somebody's home that nobody else may read."""
    here.tree(who, name, MEASURED, 0o600)
    here.there.run("chmod", "-R", "go=", f"/home/{who}/{name}")


def test_the_same_user(here: Town) -> None:
    """Whatever modes the folder has."""
    for block in below(PERMISSIONS, "1. The same user"):
        here.types("ann", block)
    private(here, "away")
    by_sftp(here, "dittohead", typed("sftp")[1])
    delivered(here)
    assert here.types("away", "ssh dittohead@ingest.example.org true", check=False).returncode != 0


def test_the_group(here: Town) -> None:
    """By an account that is logged in, by rsync over ssh, by sftp; and nobody else gets in."""
    join, *keep_out = below(PERMISSIONS, "2. The group")[:2]
    drop, copy = typed()
    for block in (join, *keep_out):
        here.types("ann", block, EDITOR="sed -i s/3773/3770/")
    assert here.mode("/srv/dittohead/inbox") == "3770 dittohead dittohead"
    private(here, "alice", "lab1-here")
    here.types("alice", named(drop, "lab1-here"))
    delivered(here, "lab1-here")
    private(here, "away")
    here.types("away", copy)
    delivered(here)
    here.tree("away", "lab1-sftp", MEASURED)
    by_sftp(here, "alice", named(typed("sftp")[0], "lab1-sftp"))
    delivered(here, "lab1-sftp")
    assert here.types("away", "mkdir /srv/dittohead/inbox/mine", check=False).returncode != 0


@pytest.mark.parametrize("which", ["access list", "umask"])
def test_programs_that_ask_for_no_mode(here: Town, which: str) -> None:
    """As FileZilla does it: a directory is made, and files are put into it."""
    join, _, acl, door = below(PERMISSIONS, "2. The group")
    here.write("/usr/local/sbin/apt-get", '#!/bin/sh\ntest "$*" = "install -y acl"\n', 0o755)
    if which == "umask":
        here.types("ann", join)
    here.types("ann", acl if which == "access list" else door)
    here.tree("away", "lab1-run42", MEASURED)
    lines = [f"mkdir /srv/dittohead/inbox/.lab1-run42{sub}" for sub in ("", "/raw")]
    lines += [f"put lab1-run42/{name} /srv/dittohead/inbox/.lab1-run42/{name}" for name in MEASURED]
    lines += [typed("sftp")[0].splitlines()[-1]]
    by_sftp(here, "alice", "".join(f"{line}\n" for line in lines))
    delivered(here)


def test_the_capability(here: Town) -> None:
    """Folders and files that are closed to everybody, as rsync and sftp bring them without being told."""
    (block,) = below(PERMISSIONS, "3. The capability")
    here.types("ann", block)
    private(here, "away")
    first, second = typed()[1].splitlines()
    plain = re.sub(r"--no-group \S+ ", "", first)
    assert plain.startswith("rsync -a --partial-dir")
    here.types("away", f"{plain}\n{second}")
    delivered(here)
    private(here, "away", "lab1-sftp")
    put, _, rename = named(typed("sftp")[0], "lab1-sftp").splitlines()
    by_sftp(here, "alice", f"{put}\n{rename}\n")
    delivered(here, "lab1-sftp")


def test_a_studys_folder(here: Town) -> None:
    """Exactly these modes and groups; the group reads, nobody else sees it, the daemon alone writes."""
    page = below(DROPPING, "A study's folder on this machine")[0]
    there = here.there
    there.run(
        "bash", "-euc", "groupadd foo-grp; useradd -g foo-grp foo; useradd -G foo-grp member; useradd other"
    )
    here.types("ann", page)
    start(here, below(DROPPING, "A study's folder on this machine", "yaml")[0] + "space: {floor: 0}\n")
    here.types("ann", below(PERMISSIONS, "2. The group")[0])
    private(here, "away", "foo-run42")
    here.there.run("sh", "-c", "echo hi > /home/away/foo-run42/run.sh; chmod 700 /home/away/foo-run42/run.sh")
    there.run("chown", "away", "/home/away/foo-run42/run.sh")
    here.types("away", typed()[1].replace("lab1-run42", "foo-run42"))
    here.arrived("foo-run42")
    found = there.run("find", "/study/foo", "-printf", "%P %m %u %g\\n").stdout.splitlines()
    top = "raw-dittohead/foo-run42"
    assert sorted(found) == sorted(
        [
            " 3775 foo foo-grp",
            "raw-dittohead 3750 dittohead foo-grp",
            f"{top} 2750 dittohead foo-grp",
            f"{top}/raw 2750 dittohead foo-grp",
            f"{top}/raw/plate.csv 640 dittohead foo-grp",
            f"{top}/run.log 640 dittohead foo-grp",
            f"{top}/run.sh 750 dittohead foo-grp",
        ]
    )

    def may(who: str, command: str) -> bool:
        return there.run("runuser", "-u", who, "--", "sh", "-c", command, check=False).returncode == 0

    assert may("member", f"cat /study/foo/{top}/run.log")
    assert not may("other", f"cat /study/foo/{top}/run.log")
    for who in ("member", "foo"):
        assert may(who, f"echo x > /study/foo/of-{who}")
        for deed in (
            f"echo x > {top}/run.log",
            f"rm -f {top}/run.log",
            f"touch {top}/new",
            f"mv {top} raw-dittohead/x",
        ):
            assert not may(who, f"cd /study/foo && {deed}"), (who, deed)
    assert not may("member", "rm -f /study/foo/of-foo")


def test_targets_and_secrets(here: Town) -> None:
    """As the installation's page says it, in the checkout; `check` knows at each moment what is missing, and who asks."""
    rm = "rm -r /etc/systemd/system/dittohead.service.d /etc/dittohead/credentials"
    here.there.run("sh", "-c", f"{rm}; systemctl daemon-reload", check=False)
    (target,) = below(INSTALL, "Targets")
    here.types("ann", target, cwd="/usr/src/dittohead")
    assert here.there.show("ActiveState") == "active"
    assert "/study" in here.there.show("ReadWritePaths")
    mail = "smtp: {host: h, sender: a@b.org, to: [a@b.org], user: u, password_credential: smtp-password}"
    here.write("/etc/dittohead/config.yaml", f"{CONFIG}notify: [{{{mail}}}]\n")
    place = "config.yaml:8:"

    def checked(who: str) -> tuple[int, str]:
        said = here.types(who, "sudo dittohead check" if who == "ann" else "dittohead check", check=False)
        return said.returncode, said.stdout

    for who in ("ann", "alice"):
        status, said = checked(who)
        assert (status, place in said, 'no credential "smtp-password"' in said) == (78, True, True), said
    write, give = below(INSTALL, "Secrets")[:2]
    here.types("ann", write, EDITOR="sh -c 'echo pass-word-1 > $1' -")
    status, said = checked("ann")
    assert (status, "the service is not given" in said) == (78, True), said
    status, said = checked("alice")
    assert (status, "alice may not see: smtp-password" in said) == (0, True), said
    here.types("ann", give)
    assert here.there.show("ActiveState") == "active"
    assert checked("ann")[0] == 0
    assert "credential" not in checked("ann")[1]
    status, said = checked("alice")
    assert (status, "alice may not see: smtp-password" in said) == (0, True), said
    here.types("ann", "sudo rm /etc/dittohead/credentials/smtp-password")
    status, said = checked("ann")
    assert (status, "names a file that is not there" in said) == (78, True), said
    here.there.run("sh", "-c", rm)


def test_who_may_run_a_folder_again(here: Town) -> None:
    """Not whose it is; the administrator, from wherever they are, and with the commands of the page."""
    check, look, again, move, keep = (
        *below(DROPPING, "Before the first folder"),
        *below(DROPPING, "What happens then"),
        *below(DROPPING, "Keeping done/ small"),
    )
    said = here.types("ann", check).stdout
    assert "the running daemon looked" in said
    assert "rsync can deliver there" in said or "/study" in said
    here.tree("alice", "lab2-run7", MEASURED)
    here.types("alice", "dittohead drop lab2-run7")
    here.arrived("lab2-run7", "failed")
    wanted = below(PERMISSIONS, "Who may run a folder again")[0].replace("lab1-run42", "lab2-run7")
    assert wanted == move
    assert here.types("alice", move.replace("sudo ", ""), check=False).returncode != 0
    here.types("ann", move)
    here.arrived("lab2-run7", "failed")
    here.there.run("install", "-d", "-o", "dittohead", "/study/lab2/raw")
    here.types("ann", again)
    here.arrived("lab2-run7")
    here.tree("alice", "lab1-run42", MEASURED)
    here.types("alice", typed()[0])
    delivered(here)
    assert "lab1-run42" in here.types("ann", look).stdout
    assert here.types("ann", keep).stdout.count("as in the receipt") == 2
    assert here.types("ann", below(PERMISSIONS, "Which one holds")[0]).stdout.count("permissions:") == 1
