"""Servers that are not the known ones, logins that are refused, disks that are full, lines that break."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from dittohead_send import sending, ssh
from dittohead_send.ssh import Login
from dittohead_send.target import Target

from tests.support.proxy import proxy
from tests.support.sending import MANIFEST, Person, Sender
from tests.support.sshd import Sshd
from tests.support.trees import read_tree, tree

pytestmark = pytest.mark.service


def fingerprint(server: Sshd) -> str:
    return asyncssh.read_public_key(server.base / "host.pub").get_fingerprint()


def test_an_unknown_server_is_refused_without_a_terminal(sender: Sender, tmp_path: Path) -> None:
    """With its fingerprint; nothing is sent, and nothing becomes known."""
    tree(sender.here / "lab1", {"a": b"a"})
    known = tmp_path / "none"
    assert sender.send("lab1", options=("--known-hosts", str(known))) == 76
    assert fingerprint(sender.server) in sender.err
    assert not known.exists()
    assert sender.names() == []


@pytest.mark.parametrize("answer", ["yes", "no"])
def test_an_unknown_server_is_asked_about_once(
    sender: Sender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    """The key that is accepted is kept, in the form that ssh reads."""
    tree(sender.here / "lab1", {"a": b"a"})
    known, person = tmp_path / "home/.ssh/known", Person(answer)
    monkeypatch.setattr(ssh, "Terminal", lambda: person)
    code = sender.send("lab1", options=("--known-hosts", str(known)))
    assert fingerprint(sender.server) in "\n".join(person.seen)
    if answer == "no":
        assert code == 76
        assert not known.exists()
        return
    assert code == 0
    assert known.read_text() == (sender.server.base / "known_hosts").read_text()
    tree(sender.here / "lab2", {"a": b"a"})
    assert sender.send("lab2", options=("--known-hosts", str(known))) == 0  # not asked again


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_another_key_than_the_known_one_is_refused(sender: Sender, tmp_path: Path, kind: str) -> None:
    """Nobody is asked: that is what an attack looks like. Also where the kind of the key is another."""
    tree(sender.here / "lab1", {"a": b"a"})
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", tmp_path / "other"], check=True)
    key = (tmp_path / "other.pub").read_text().split()
    known = tmp_path / "known"
    known.write_text(f"# of old\nnot a line\n[127.0.0.1]:{sender.server.port} {key[0]} {key[1]}\n")
    assert sender.send("lab1", options=("--known-hosts", str(known))) == 76
    assert "the server is not the one that is known here" in sender.err
    assert f"ssh-keygen -R [127.0.0.1]:{sender.server.port}" in sender.err
    assert sender.names() == []


def test_a_refused_login_says_who_and_what_to_do(sender: Sender, tmp_path: Path) -> None:
    tree(sender.here / "lab1", {"a": b"a"})
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    assert sender.send("lab1", options=("--identity", str(tmp_path / "other"))) == 77
    assert "refused the login of" in sender.err
    assert "Without a terminal no password is asked for" in sender.err


def test_a_key_with_a_passphrase_is_asked_for(
    sender: Sender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, and it stands nowhere."""
    tree(sender.here / "lab1", {"a": b"a"})
    shutil.copy(sender.server.base / "client", tmp_path / "key")
    subprocess.run(
        ["ssh-keygen", "-q", "-p", "-P", "", "-N", "open sesame", "-f", tmp_path / "key"], check=True
    )
    person = Person("open sesame")
    monkeypatch.setattr(ssh, "Terminal", lambda: person)
    assert sender.send("lab1", options=("--identity", str(tmp_path / "key"))) == 0, sender.err
    assert person.seen == [f"Passphrase of the key {tmp_path}/key: "]
    assert "sesame" not in sender.out + sender.err
    person.answers.append("wrong")
    assert sender.send("lab1", options=("--identity", str(tmp_path / "key"))) == 66
    assert sender.send("lab1", options=("--identity", str(tmp_path / "nokey"))) == 66


@pytest.mark.parametrize("where", ["no/such/place", ""])
def test_an_inbox_that_is_not_there_is_named(sender: Sender, where: str) -> None:
    tree(sender.here / "lab1", {"a": b"a"})
    assert sender.send("lab1", to=f"{sender.server.host}:{where}") == 69
    assert ("no such directory" if where else "no inbox is in the usual places") in sender.err


def test_no_server_is_said_at_once(sender: Sender) -> None:
    tree(sender.here / "lab1", {"a": b"a"})
    with proxy(sender.server.port) as line:
        port = line.port
    assert sender.send("lab1", options=("--port", str(port))) == 69
    assert "no connection" in sender.err


def test_a_line_that_breaks_is_made_again(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the same run; what was confirmed before the break is not sent again."""
    monkeypatch.setattr(sending, "_FIRST_S", 0.01)
    content = {"big": os.urandom(6 << 20), **{f"s{n}": os.urandom(9000) for n in range(300)}}
    folder = tree(sender.here / "lab1", content)
    with proxy(sender.server.port) as line:
        line.cut_after = 3 << 20
        sender.port = line.port
        known = (sender.server.base / "known_hosts").read_text()
        options = ("--known-hosts", str(sender.here / "known"))
        (sender.here / "known").write_text(known.replace(str(sender.server.port), str(line.port)))
        (said,) = sender.results("lab1", options=options)
    assert line.seen > 2
    assert said["state"] == "sent"
    assert "connection lost" in sender.err
    assert said["bytes_sent"] <= said["bytes"] + (line.seen - 1) * (12 << 20)
    found = read_tree(sender.inbox / "lab1")
    found.pop(MANIFEST.encode())
    assert found == read_tree(folder)


def test_a_line_that_stays_broken_is_given_up_and_the_same_command_goes_on(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "_FIRST_S", 0.01)
    folder = tree(sender.here / "lab1", {"big": os.urandom(6 << 20)})
    known = (sender.server.base / "known_hosts").read_text()
    with proxy(sender.server.port) as line:
        (sender.here / "known").write_text(known.replace(str(sender.server.port), str(line.port)))
        line.cut_after = 3 << 20
        begin = sending.Upload.attempt

        async def refused_later(upload: Any, remote: Any) -> Any:
            line.refusing = True
            return await begin(upload, remote)

        monkeypatch.setattr(sending.Upload, "attempt", refused_later)
        sender.port = line.port
        code = sender.send("lab1", options=("--retry-for", "0", "--known-hosts", str(sender.here / "known")))
        assert code == 75
        assert "Type the same command again; it continues where it stopped" in sender.err
    monkeypatch.undo()
    sender.port = 0
    assert sender.names() == [".lab1"]
    there = (sender.inbox / ".lab1" / "big").stat().st_size
    (said,) = sender.results("lab1")
    assert there
    assert said["bytes_sent"] == (6 << 20) - there
    assert (sender.inbox / "lab1" / "big").read_bytes() == (folder / "big").read_bytes()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts")
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", place], check=True)
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.parametrize("known", [True, False])
def test_a_full_disk_is_said_and_when_there_is_space_the_same_command_goes_on(
    sender: Sender, small_disk: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """Before anything is sent, or in the middle, where others fill it meanwhile."""
    folder = tree(sender.here / "lab1", {"a": os.urandom(3 << 20), "b": os.urandom(3 << 20)})
    sender.inbox = small_disk
    if not known:
        monkeypatch.setattr(sending.Upload, "_check_space", _nothing)
    assert sender.send("lab1") == 75
    assert ("the server has space for" if known else "the server's disk is full") in sender.err
    assert "Tell the administrator" in sender.err
    subprocess.run(["mount", "-o", "remount,size=40m", small_disk], check=True)
    assert sender.send("lab1") == 0, sender.err
    found = read_tree(small_disk / "lab1")
    found.pop(MANIFEST.encode())
    assert found == read_tree(folder)


async def _nothing(*given: object) -> None:
    return None


class _Passwords(asyncssh.SSHServer):
    """A server that asks; `kbdint` as PAM does it, with a code of one use."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def password_auth_supported(self) -> bool:
        return self.kind == "password"

    def validate_password(self, username: str, password: str) -> bool:
        return password == "correct horse"

    def kbdint_auth_supported(self) -> bool:
        return self.kind == "kbdint"

    def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> Any:
        return "", "Welcome", lang, [("Password: ", False), ("Code: ", True)]

    def validate_kbdint_response(self, username: str, responses: Any) -> bool:
        return list(responses) == ["correct horse", "123456"]


@pytest.fixture(params=["password", "kbdint"])
async def asking(request: pytest.FixtureRequest) -> AsyncIterator[tuple[str, int]]:
    listening = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_factory=lambda: _Passwords(request.param),
        server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
    )
    yield request.param, listening.get_port()
    listening.close()
    await listening.wait_closed()


async def test_passwords_are_asked_for_and_kept_for_the_next_connection(
    asking: tuple[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A code is asked for each time; a password is used again until it is refused."""
    monkeypatch.setenv("HOME", str(tmp_path))
    kind, port = asking
    code = ["123456"] if kind == "kbdint" else []
    person = Person("yes", "wrong", *code, "correct horse", *code, *code)
    login = Login(
        target=Target(user="alice", host="127.0.0.1", path=""), port=port, config="none", terminal=person
    )
    for _ in range(2):
        connection = await ssh.connect(login)
        connection.abort()
    assert person.answers == []
    assert "correct horse" not in repr(login) + "".join(person.seen)
