"""The wheel alone in a fresh virtual environment, run by a normal user against sshd's internal-sftp."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sending import MANIFEST
from tests.support.sshd import Sshd, sshd
from tests.support.trees import read_tree, tree
from tests.support.wheel import TOP, build, copy, site_of

pytestmark = [pytest.mark.service, pytest.mark.timeout(240)]

#: asyncssh, and what it requires. Nothing else of the tests' packages is seen.
NEEDED = ("asyncssh", "bcrypt", "cryptography", "cffi", "_cffi_backend*", "pycparser", "typing_extensions.py")
NOBODY = 65534


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory that other users may enter, unlike pytest's."""
    made = Path(tempfile.mkdtemp(prefix="dittohead-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def program(place: Path) -> Path:
    sources = copy(place / "sources", "send/") / "send"
    wheel = build(sources, place / "out")
    venv.create(place / "venv", with_pip=False, symlinks=True)
    packages = place / "packages"
    packages.mkdir()
    for pattern in NEEDED:
        for path in Path(sysconfig.get_path("purelib")).glob(pattern):
            (packages / path.name).symlink_to(path)
    (site_of(place / "venv") / "needed.pth").write_text(f"{packages}\n")
    pip = [sys.executable, "-m", "pip", "--python", place / "venv/bin/python", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "-q", "--no-index", "--no-deps", wheel], check=True, capture_output=True)
    return place / "venv/bin/dittohead-send"


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[Sshd]:
    with sshd(place / "sshd") as made:
        made.base.chmod(0o755)  # sshd reads the keys of an account as that account
        yield made


def run(*command: str | Path, home: Path) -> subprocess.CompletedProcess[str]:
    """Run a command as a normal user: this one, or one who may do nothing."""
    other = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    return subprocess.run(
        command,
        cwd=home,
        env={"HOME": str(home), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
        **other,  # type: ignore[call-overload]  # of Popen
    )


def test_a_normal_user_sends_a_folder(program: Path, server: Sshd, place: Path) -> None:
    """The program has no other package of the checkout; the inbox is closed to others, as an installed one is."""
    home = place / "home"
    inbox = place / "inbox"
    folder = tree(home / "lab1", {"sub": {"a.tif": os.urandom(3 << 20)}, "b.txt": b"b" * 99})
    inbox.mkdir()
    if os.geteuid() == 0:
        for path in (home, *home.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        inbox.chmod(0o3773)
        shutil.copy(server.base / "client", home / "key")
        os.chown(home / "key", NOBODY, NOBODY)
        key, user = home / "key", "nobody"
    else:
        key, user = server.base / "client", server.host.partition("@")[0]
    assert run(program, "--version", home=home).stdout.startswith("dittohead-send ")
    outside = run(program.parent / "python", "-c", "import dittohead", home=home)
    assert "No module named 'dittohead'" in outside.stderr
    options = ["--port", str(server.port), "--identity", key, "--known-hosts", server.base / "known_hosts"]
    said = run(program, "lab1", f"{user}@127.0.0.1:{inbox}", *options, home=home)
    assert said.returncode == 0, said.stderr
    assert os.listdir(inbox) == ["lab1"]
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", MANIFEST], cwd=inbox / "lab1", check=True)
    found = read_tree(inbox / "lab1")
    found.pop(MANIFEST.encode())
    assert found == read_tree(folder)
    if os.geteuid() == 0:
        # This user is not in the inbox's group, and yet all of it belongs to the group, and can be moved by it.
        for path in (inbox / "lab1", *(inbox / "lab1").rglob("*")):
            assert path.stat().st_gid == 0
            assert path.stat().st_mode & (0o070 if path.is_dir() else 0o040), path
        inbox.chmod(0o755)  # and now it is closed
        said = run(program, "lab1", f"{user}@127.0.0.1:{inbox}", "--name", "lab2", *options, home=home)
        assert said.returncode == 77
        assert "the server does not permit this" in said.stderr


def test_the_main_program_hands_over_where_it_is_installed(tmp_path: Path) -> None:
    """And says how to install it where it is not."""
    command = [sys.executable, "-m", "dittohead", "send", "--version"]
    env = {**os.environ, "PYTHONPATH": str(TOP / "send")}
    said = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert said.stdout.startswith("dittohead-send "), said.stderr
    env.pop("PYTHONPATH")
    said = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert said.returncode == 69
    assert "pip install dittohead-send" in said.stderr
