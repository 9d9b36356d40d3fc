"""The unit: closed in as promised, verified by systemd's own tools; the installer puts everything in place."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
UNIT = TOP / "systemd" / "dittohead.service"

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="SYSTEMD IS NOT INSTALLED: its checks are left out"
)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="NEEDS ROOT: left out")


@needs_systemd
def test_the_service_is_exposed_by_1_2_at_most() -> None:
    """Systemd's own score, without any capability."""
    said = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", str(UNIT)],
        capture_output=True,
        text=True,
        check=False,
    )
    score = re.search(r"Overall exposure level for dittohead.service: ([\d.]+)", said.stdout)
    assert score is not None, said.stderr
    assert float(score[1]) <= 1.2


@needs_systemd
def test_systemd_finds_no_mistake_in_the_unit(tmp_path: Path) -> None:
    """With a program that is there in the place of ours."""
    text = UNIT.read_text().replace("/opt/dittohead/bin/dittohead", "/bin/true")
    (tmp_path / "dittohead.service").write_text(text)
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
    install = [str(TOP / "tools" / "install"), "--files-only", "--root", str(tmp_path)]
    subprocess.run(install, check=True, capture_output=True)
    config = tmp_path / "etc/dittohead/config.yaml"
    assert "root: /srv/dittohead" in config.read_text()
    config.write_text("mine")
    subprocess.run(install, check=True, capture_output=True)
    assert config.read_text() == "mine"
    for place in (
        "etc/systemd/system/dittohead.service",
        "usr/lib/sysusers.d/dittohead.conf",
        "usr/lib/tmpfiles.d/dittohead.conf",
    ):
        assert (tmp_path / place).exists()


@needs_systemd
@needs_root
def test_user_and_stations_are_made_by_systemds_own_tools(tmp_path: Path) -> None:
    """The drop box has mode 3773, as the field's drop boxes have."""
    subprocess.run(
        [str(TOP / "tools/install"), "--files-only", "--root", str(tmp_path)], check=True, capture_output=True
    )
    subprocess.run(["systemd-sysusers", f"--root={tmp_path}"], check=True, capture_output=True)
    assert "dittohead" in (tmp_path / "etc/passwd").read_text()
    subprocess.run(["systemd-tmpfiles", "--create", f"--root={tmp_path}"], check=True, capture_output=True)
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "srv/dittohead").iterdir()}
    assert modes["inbox"] == 0o3773
    assert modes["processing"] == modes["state"] == modes["work"] == 0o700
