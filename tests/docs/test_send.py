"""The page for uploaders, typed: installed in a fresh environment, and a folder sent to a real sshd."""

from __future__ import annotations

import getpass
import os
import sysconfig
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, blocks
from tests.docs.shell import Shell
from tests.support.sending import MANIFEST
from tests.support.sshd import sshd
from tests.support.trees import read_tree, tree
from tests.support.wheel import build, copy

pytestmark = [pytest.mark.service, pytest.mark.timeout(240)]

PAGE = DOCS / "send.md"


def test_three_lines_install_it_and_send_a_folder(tmp_path: Path) -> None:
    """Pip takes the wheel of this checkout, and what that requires from the tests' own packages: no network."""
    build(copy(tmp_path / "sources", "send/") / "send", tmp_path / "wheels")
    (inbox := tmp_path / "srv/inbox").mkdir(parents=True)
    with sshd(tmp_path / "sshd") as server:
        shell = Shell(tmp_path / "shell")
        (shell.home / ".ssh").mkdir(mode=0o700)
        (shell.home / ".ssh/config").write_text(
            f"Host ingest.example.org\n  HostName 127.0.0.1\n  Port {server.port}\n"
            f"  IdentityFile {server.base}/client\n  UserKnownHostsFile {server.base}/known_hosts\n"
            "  HostKeyAlias server\n"
        )
        key = (server.base / "host.pub").read_text()
        (server.base / "known_hosts").write_text(f"[server]:{server.port} {key}")
        folder = tree(
            shell.home / "lab1-run42", {"raw": {"plate.csv": b"1,2\n"}, "big.tif": os.urandom(1 << 20)}
        )
        typed = next(block.text for block in blocks(PAGE) if block.language == "sh")
        typed = typed.replace("alice@", f"{getpass.getuser()}@").replace(
            "/srv/dittohead", str(tmp_path / "srv")
        )
        offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "wheels"), "PIP_NO_DEPS": "1"}
        said = shell.run(typed, env={**offline, "PYTHONPATH": sysconfig.get_path("purelib")})
    assert "lab1-run42: 2 files" in said.stdout
    found = read_tree(inbox / "lab1-run42")
    assert found.pop(MANIFEST.encode())
    assert found == read_tree(folder)


def test_the_lines_for_windows_are_the_same_but_for_their_paths() -> None:
    """No test types them."""
    here, there = ([*block.text.splitlines()] for block in blocks(PAGE)[:2])
    plain = [
        line.replace("%USERPROFILE%", "~")
        .replace("\\Scripts\\", "/bin/")
        .replace("C:\\scans\\", "")
        .replace("\\", "/")
        for line in there
    ]
    assert plain == [here[0].replace("python3", "py"), *here[1:]]
