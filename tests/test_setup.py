"""tools/setup on machines of many kinds: which Python it takes, what it keeps, how it goes on, what it refuses.

apt-get, sudo and pip are stand-ins that note what they were asked; `make prove-debian` has the real ones in bare systems.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.wheel import TOP

#: What a set-up finds on every machine.
TOOLS = [
    "sh", "env", "dirname", "cat", "cksum", "sort", "tr", "mkdir", "rm", "touch", "ls", "find", "wc", "grep", "tail", "sed",
    "cut", "id", "stat", "sleep", "flock", "realpath", "cp",
]  # fmt: skip

#: A pip that notes its arguments, and stops in the middle where STOP names a file, as a killed one would.
PIP = """
import os, pathlib, signal, sys, sysconfig
site = pathlib.Path(sysconfig.get_path("purelib"))
print("Collecting something")
print("Installing collected packages: one, two")
for name in ("one", "two"):
    info = site / f"{name}-1.dist-info"
    if (info / "METADATA").exists():
        continue
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Name: " + name)
    if os.environ.get("STOP") == name:
        os.killpg(0, signal.SIGKILL)
    (info / "RECORD").write_text(f"{name}-1.dist-info/METADATA,,{len('Name: ' + name)}\\n{name}-1.dist-info/RECORD,,\\n")
if os.environ.get("FAIL"):
    print("WARNING: Location '/x' is ignored\\nERROR: no network")
    sys.exit(1)
pathlib.Path("pip-ran").open("a").write(" ".join(sys.argv[1:]) + "\\n")
"""


class Machine:
    """A checkout in a path with a blank, and what is on PATH."""

    def __init__(self, base: Path) -> None:
        self.top, self.bin = base / "my work" / "dittohead", base / "bin"
        (self.top / "tools").mkdir(parents=True)
        self.bin.mkdir()
        for name in ("tools/setup", "tools/packages.sh", "pyproject.toml", "requirements.txt"):
            shutil.copy2(TOP / name, self.top / name)
        for name in TOOLS:
            found = shutil.which(name)
            assert found, name
            (self.bin / name).symlink_to(found)
        for name in re.findall(r"([\w.-]+):[\w-]+(?=[ \"])", (TOP / "tools" / "setup").read_text()):
            if not (self.bin / name).exists():
                self.program(name, "exit 0")
        self.program("ldconfig", "echo libvips.so.42; echo libatomic.so.1")
        self.program("dpkg", 'test "$1" != --audit || cat "$0.audit" 2>/dev/null; echo "dpkg $*" >>did')
        self.program(
            "apt-get",
            'echo "apt-get $*" >>did; echo pmstatus:rsync:50.0:Unpacking rsync; test ! -e "$0.fails"',
        )
        self.program(
            "sudo",
            'echo "sudo $*" >>did; test ! -e "$0.refuses" || exit 1; test "$1" != -n || shift; exec "$@"',
        )
        # The real one makes a virtual environment in its way; a stand-in for pip goes into it.
        self.python = self.bin / "python3"
        self.program(
            "python3",
            f'if [ "$1 $2" != "-m venv" ]; then exec {sys.executable} "$@"; fi\n'
            f'{sys.executable} -m venv --without-pip "$3" || exit\n'
            'for site in "$3"/lib/python3*/site-packages; do mkdir "$site/pip"; done\n'
            f'cp "{base}/pip.py" "$site/pip/__main__.py"; : >"$site/pip/__init__.py"',
        )
        (base / "pip.py").write_text(PIP)
        self.env = {"PATH": str(self.bin), "HOME": str(base), "PYTHON": str(self.python)}
        self.venv = self.top / ".venv"

    def program(self, name: str, text: str) -> None:
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def setup(self, what: str = "run", status: int = 0, **env: str) -> str:
        """Run it and return what it says."""
        said = subprocess.run(
            [self.top / "tools" / "setup", what], env={**self.env, **env}, capture_output=True, text=True,
            cwd="/", check=False, timeout=100, start_new_session=True,
        )  # fmt: skip
        assert said.returncode == status, said.stdout + said.stderr
        return said.stdout + said.stderr

    def did(self) -> str:
        file = self.top / "did"
        return file.read_text() if file.exists() else ""

    def pip_runs(self) -> int:
        file = self.top / "pip-ran"
        return len(file.read_text().splitlines()) if file.exists() else 0


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_it_installs_once_and_then_has_nothing_to_say(machine: Machine) -> None:
    """In a path with a blank, without apt-get where nothing is missing."""
    said = machine.setup()
    assert f"takes Python {sys.version.split()[0]}" in said
    assert said.endswith("setup: done\n")
    assert machine.did() == ""
    assert machine.setup() == ""
    assert machine.pip_runs() == 1


def test_a_changed_pin_is_installed_and_the_tests_packages_hold_the_daemons(machine: Machine) -> None:
    machine.setup("test")
    assert machine.setup("run") == ""
    with open(machine.top / "requirements.txt", "a") as pins:
        pins.write("another==1\n")
    assert "will install Python packages" in machine.setup("run")
    assert machine.pip_runs() == 2


def test_the_distributions_python_goes_before_a_private_build_on_path(machine: Machine) -> None:
    """A private build may be slow, and goes when its owner tidies up."""
    if subprocess.run(
        ["/usr/bin/python3", "-c", "import ensurepip"], capture_output=True, check=False
    ).returncode:
        pytest.skip("THE DISTRIBUTION'S PYTHON OR ITS python3-venv IS MISSING HERE: left out")
    # It ends after that sentence, since this directory is nothing it would touch.
    said = machine.setup(PYTHON="", VENV="tools", status=1)
    assert "/usr/bin/python3: the distribution's, not the first on PATH, " in said
    assert str(machine.python) in said


def test_a_python_that_is_named_is_taken_or_refused(machine: Machine) -> None:
    assert "as PYTHON says" in machine.setup()
    machine.program("old", 'case "$*" in *version_info*) echo "3.9.2 /old"; exit 1 ;; esac')
    assert "is not a Python of 3.11 or newer" in machine.setup(PYTHON=str(machine.bin / "old"), status=1)


def test_an_environment_that_another_python_made_is_kept_and_said(machine: Machine) -> None:
    machine.setup()
    cfg = machine.venv / "pyvenv.cfg"
    # A real other build is not at hand: the venv's base is, and the one that is chosen says it is elsewhere.
    assert cfg.exists()
    machine.program(
        "other",
        f'case "$*" in *version_info*) echo "3.13.1 /bin/sh" ;; *) exec {sys.executable} "$@" ;; esac',
    )
    with open(machine.top / "requirements.txt", "a") as pins:
        pins.write("another==1\n")
    said = machine.setup(PYTHON=str(machine.bin / "other"))
    assert f"keeps .venv, which another Python made: {os.path.realpath(sys.executable)}" in said
    assert "remove .venv" in said


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        ("rm bin/python*; ln -s /nowhere bin/python", "its Python does not start"),
        ("sed -i 's/^version = .*/version = 3.8.1/' pyvenv.cfg", "it was made by Python 3.8, which is"),
        (
            "sed -i 's|^command = .* -m venv .*|command = x -m venv /somewhere/else|' pyvenv.cfg",
            "it was made in another place",
        ),
        ("rm -r lib/python3*/site-packages/pip", "it has no pip"),
        ("touch .making", "its making was broken off"),
    ],
)
def test_an_environment_that_cannot_be_used_is_made_again_and_said(
    machine: Machine, harm: str, why: str
) -> None:
    """An upgraded distribution, a moved checkout, a kill."""
    machine.setup()
    subprocess.run(["sh", "-ec", harm], cwd=machine.venv, check=True)
    said = machine.setup()
    assert f"makes .venv again: {why}" in said
    assert machine.setup() == ""


def test_a_directory_that_is_no_environment_is_not_touched(machine: Machine) -> None:
    (machine.top / "photos").mkdir()
    (machine.top / "photos" / "a.jpg").write_text("mine")
    assert "is not a virtual environment" in machine.setup(VENV="photos", status=1)
    assert (machine.top / "photos" / "a.jpg").read_text() == "mine"


def test_killed_in_pip_it_goes_on_and_installs_again_what_was_half_there(machine: Machine) -> None:
    """For pip, a package is installed that has METADATA; RECORD is written last."""
    machine.setup(STOP="two", status=-signal.SIGKILL)
    site = next((machine.venv / "lib").glob("python3*/site-packages"))
    assert not (site / "two-1.dist-info" / "RECORD").exists()
    (site / "one-1.dist-info" / "METADATA").write_text("")  # a power cut, too
    said = machine.setup()
    assert "goes on with an installation that was broken off" in said
    for name in ("one", "two"):
        assert (site / f"{name}-1.dist-info" / "METADATA").read_text() == f"Name: {name}"
        assert (site / f"{name}-1.dist-info" / "RECORD").exists()


def test_what_pip_fails_at_is_said_without_what_floods_it(machine: Machine) -> None:
    said = machine.setup(FAIL="yes", status=1)
    assert "ERROR: no network" in said
    assert "Location" not in said
    assert ".setup/log" in said
    assert machine.setup().endswith("setup: done\n")


def test_missing_packages_are_named_installed_and_looked_for_again(machine: Machine) -> None:
    (machine.bin / "rsync").unlink()
    root = os.geteuid() == 0
    said = machine.setup(status=1)
    assert "will install these Debian packages with apt-get: rsync" in said
    assert "these are still missing: rsync" in said
    assert "--no-install-recommends" in machine.did()
    assert ("sudo" in machine.did()) != root


def test_killed_in_apt_get_it_goes_on_with_the_same_packages(machine: Machine) -> None:
    """The program may be there although its package was never configured."""
    (machine.bin / "rsync").unlink()
    machine.program("apt-get", 'case "$*" in *install*) kill -9 0 ;; esac')
    machine.setup(status=-signal.SIGKILL)
    machine.program("rsync", "exit 0")
    (machine.bin / "dpkg.audit").write_text("rsync is half configured\n")
    machine.program("apt-get", 'echo "apt-get $*" >>did')
    said = machine.setup()
    assert "will install these Debian packages with apt-get: rsync" in said
    assert "dpkg --force-confold --configure -a" in machine.did()
    assert "install rsync" in machine.did()
    assert machine.setup() == ""


def test_what_apt_get_fails_at_is_said(machine: Machine) -> None:
    (machine.bin / "rsync").unlink()
    machine.program("apt-get", "echo 'E: Unable to locate package'; exit 100")
    said = machine.setup(status=1)
    assert "E: Unable to locate package" in said
    assert "apt-get update failed" in said
    assert "apt-get failed" in said


def test_without_apt_get_it_says_what_is_missing(machine: Machine) -> None:
    (machine.bin / "rsync").unlink()
    (machine.bin / "apt-get").unlink()
    assert "apt-get is missing. Install what these Debian packages hold" in machine.setup(status=1)


@pytest.mark.parametrize(
    ("sudo", "why"), [("missing", "sudo is missing"), ("refuses", "sudo does not let you")]
)
def test_without_sudos_leave_it_says_what_root_has_to_do(machine: Machine, sudo: str, why: str) -> None:
    (machine.bin / "rsync").unlink()
    (machine.bin / "id").unlink()
    machine.program("id", 'test "$1" = -u && echo 1000 || echo reader')
    if sudo == "missing":
        (machine.bin / "sudo").unlink()
    else:
        (machine.bin / "sudo.refuses").touch()
    said = machine.setup(status=1)
    assert f"{why}" in said
    assert "apt-get install rsync" in said
    assert "apt-get" not in machine.did().replace("sudo", "")


def test_two_at_once_wait_for_each_other(machine: Machine) -> None:
    """Or one after a kill whose pip is still at work."""
    held = os.open(machine.top, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    command = [machine.top / "tools" / "setup", "run"]
    with subprocess.Popen(command, env=machine.env, stdout=subprocess.PIPE, text=True) as waiting:
        assert waiting.stdout is not None
        assert "waits until another set-up" in waiting.stdout.readline()
        assert machine.pip_runs() == 0
        os.close(held)
        assert waiting.stdout.read().endswith("setup: done\n")
    assert waiting.returncode == 0
