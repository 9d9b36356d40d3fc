"""The unit: closed in as promised, verified by systemd's own tools; the installer puts everything in place."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
UNIT = TOP / "systemd" / "dittohead.service"

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="SYSTEMD IS NOT INSTALLED: its checks are left out"
)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="NEEDS ROOT: left out")


EXAMPLE = TOP / "systemd" / "dittohead.service.d-example.conf"


def install(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the installer, without man pages, which have a test of their own and take a second each time."""
    said = subprocess.run(
        [TOP / "tools" / "install", *arguments],
        env={**os.environ, "PYTHON": "/none"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not check or said.returncode == 0, said.stderr
    return said


def exposure(folder: Path, **changed: str) -> float:
    """Systemd's score for the unit, with some of its settings changed as by a drop-in."""
    text = UNIT.read_text()
    for key, value in changed.items():
        text, count = re.subn(rf"^{key}=.*$", f"{key}={value}", text, flags=re.MULTILINE)
        assert count == 1, key
    return exposure_of(text, folder)


def exposure_of(text: str, folder: Path) -> float:
    """Systemd's score for a unit of this text."""
    (folder / "dittohead.service").write_text(text)
    said = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", str(folder / "dittohead.service")],
        capture_output=True,
        text=True,
        check=False,
    )
    score = re.search(r"Overall exposure level for dittohead.service: ([\d.]+)", said.stdout)
    assert score is not None, said.stderr
    return float(score[1])


@needs_systemd
def test_the_service_is_exposed_by_1_2_at_most(tmp_path: Path) -> None:
    """Systemd's own score, without any capability."""
    assert exposure(tmp_path) <= 1.2


@needs_systemd
def test_what_the_drop_ins_cost_is_what_the_pages_say(tmp_path: Path) -> None:
    """Anyone who opens the service further is to know by how much."""
    capability = exposure(
        tmp_path, CapabilityBoundingSet="CAP_DAC_OVERRIDE", AmbientCapabilities="CAP_DAC_OVERRIDE"
    )
    assert f"from 1.2 to {capability}" in (TOP / "docs/permissions.md").read_text()
    install_page = (TOP / "docs/install.md").read_text()
    assert f"(score {exposure(tmp_path, RestrictSUIDSGID='no')})" in install_page
    assert f"(score {exposure(tmp_path, ProtectHome='read-only')})" in install_page
    filtered = UNIT.read_text().replace("[Install]", "SystemCallFilter=@chown\n[Install]")
    assert f"`SystemCallFilter=@chown` (score {exposure_of(filtered, tmp_path)})" in install_page


@needs_systemd
def test_systemd_finds_no_mistake_in_the_unit(tmp_path: Path) -> None:
    """With a program that is there in the place of ours, and with the example drop-in."""
    text = UNIT.read_text().replace("/opt/dittohead/bin/dittohead", "/bin/true")
    assert "/opt/" not in text
    (tmp_path / "dittohead.service").write_text(text)
    (tmp_path / "dittohead.service.d").mkdir()
    shutil.copy(EXAMPLE, tmp_path / "dittohead.service.d" / "site.conf")
    said = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / "dittohead.service")],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in said.stderr.splitlines() if "dittohead" in line]
    assert ours == []


def test_the_unit_lists_the_stations_parent_once() -> None:
    """Each entry is a mount of its own; a rename between two mounts fails."""
    paths = [line for line in UNIT.read_text().splitlines() if line.startswith("ReadWritePaths=")]
    assert paths == ["ReadWritePaths=/srv/dittohead"]


def test_the_installer_puts_every_file_in_place_and_keeps_an_edited_config(tmp_path: Path) -> None:
    """Twice the same; a configuration is never overwritten."""
    install("--files-only", "--root", tmp_path)
    config = tmp_path / "etc/dittohead/config.yaml"
    assert "root: /srv/dittohead" in config.read_text()
    config.write_text("mine")
    assert "kept" in install("--files-only", "--root", tmp_path).stdout
    assert config.read_text() == "mine"
    for place in (
        "etc/systemd/system/dittohead.service",
        "usr/lib/sysusers.d/dittohead.conf",
        "usr/lib/tmpfiles.d/dittohead.conf",
        "usr/local/share/doc/dittohead/docs/permissions.md",
    ):
        assert (tmp_path / place).exists()


def test_the_unit_runs_what_the_installer_installs(tmp_path: Path) -> None:
    """The program and the configuration, where the installer put them; the stations' parent as in it."""
    install("--files-only", "--root", tmp_path)
    unit = (tmp_path / "etc/systemd/system/dittohead.service").read_text()
    assert unit == UNIT.read_text()
    (prefix,) = re.findall(r"^root='' prefix=(\S+) ", (TOP / "tools/install").read_text(), re.MULTILINE)
    (program, config) = re.findall(r"^ExecStart=(\S+) --config (\S+) run$", unit, re.MULTILINE)[0]
    assert f"\nExecReload={program} --config {config} reload\n" in unit
    assert program == f"{prefix}/bin/dittohead"
    assert (tmp_path / config.lstrip("/")).exists()
    (parent,) = re.findall(r"^ReadWritePaths=(\S+)$", unit, re.MULTILINE)
    assert f"root: {parent}\n" in (tmp_path / config.lstrip("/")).read_text()


def test_with_another_prefix_the_unit_runs_the_program_there(tmp_path: Path) -> None:
    """Else the service would not start, or start an older program."""
    install("--files-only", "--root", tmp_path, "--prefix", "/usr/local/lib/dittohead/")
    unit = (tmp_path / "etc/systemd/system/dittohead.service").read_text()
    assert "ExecStart=/usr/local/lib/dittohead/bin/dittohead --config" in unit
    assert "/opt/" not in unit


@pytest.mark.parametrize(
    "arguments",
    [
        ["--what"],
        ["--root"],
        ["--root", "/x"],  # everything else would go to this machine
        ["--files-only", "--prefix", "relative"],
        ["--files-only", "--prefix", "/a|b"],
    ],
)
def test_the_installer_refuses_what_it_cannot_do(arguments: list[str], tmp_path: Path) -> None:
    """Before it has touched anything."""
    said = install(*arguments, check=False)
    assert said.returncode == os.EX_USAGE
    assert said.stderr.startswith(("usage: ", "install: --prefix wants"))


@needs_systemd
@needs_root
def test_user_and_stations_are_made_by_systemds_own_tools(tmp_path: Path) -> None:
    """The drop box has mode 3773, as the field's drop boxes have; twice the same."""
    install("--files-only", "--root", tmp_path)
    subprocess.run(["systemd-sysusers", f"--root={tmp_path}"], check=True, capture_output=True)
    (user,) = re.findall(r"^dittohead:x:(\d+):", (tmp_path / "etc/passwd").read_text(), re.MULTILINE)
    for _ in range(2):
        subprocess.run(
            ["systemd-tmpfiles", "--create", f"--root={tmp_path}"], check=True, capture_output=True
        )
    parent = tmp_path / "srv/dittohead"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [parent, *parent.iterdir()]}
    assert modes == {
        "dittohead": 0o755,
        "inbox": 0o3773,
        "processing": 0o700,
        "done": 0o750,
        "failed": 0o750,
        "work": 0o700,
        "receipts": 0o750,
        "state": 0o700,
    }
    assert {path.stat().st_uid for path in [parent, *parent.iterdir()]} == {int(user)}


def test_images_can_be_read_and_written_without_executable_memory() -> None:
    """As under MemoryDenyWriteExecute=, which the kernel is asked for here by prctl(PR_SET_MDWE)."""
    child = (
        "import ctypes, json, sys\n"
        "if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0): sys.exit(3)\n"
        "from dittohead.toolkit.images import library\n"
        "print(json.dumps(library.probe()))\n"
    )
    said = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=False, cwd=TOP)
    if said.returncode == 3:
        pytest.skip("THE KERNEL HAS NO PR_SET_MDWE (it came with 6.3): left out")
    assert said.returncode == 0, said.stderr
    found = json.loads(said.stdout)
    assert {"jpeg", "tiff"} <= set(found["load"])
    assert {"jpeg", "deflate"} <= set(found["compressions"])


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that other users may enter; pytest's own are closed to them."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@needs_systemd
@needs_root
def test_who_may_do_what_in_the_drop_box(open_path: Path) -> None:
    """What docs/permissions.md says of mode 3773, by people of other uids."""
    install("--files-only", "--root", open_path)
    subprocess.run(["systemd-sysusers", f"--root={open_path}"], check=True, capture_output=True)
    subprocess.run(["systemd-tmpfiles", "--create", f"--root={open_path}"], check=True, capture_output=True)
    inbox = open_path / "srv/dittohead/inbox"
    group = inbox.stat().st_gid

    def may(member: bool, uid: int, *argv: str | Path) -> bool:
        groups = [group] if member else []
        return (
            subprocess.run(
                argv, user=uid, group=uid, extra_groups=groups, umask=0o002, capture_output=True, check=False
            ).returncode
            == 0
        )

    assert may(False, 60001, "mkdir", inbox / "theirs")
    assert (inbox / "theirs").stat().st_gid == group
    assert stat.S_IMODE((inbox / "theirs").stat().st_mode) == 0o2775
    assert not may(False, 60001, "ls", inbox)
    assert may(True, 60002, "ls", inbox)
    assert not may(True, 60002, "mv", inbox / "theirs", inbox / "mine")
