"""A disk that can lose its power: a real file system in an image file, on a loop device."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

#: What makes each kind, with the smallest image it takes.
KINDS = {"ext4": ("mkfs.ext4 -q -F", "64M"), "xfs": ("mkfs.xfs -q -f", "320M")}


@dataclass
class Disk:
    """A mounted image; `again` is what a reboot does: journal recovery, and what was lost is lost."""

    kind: str
    image: Path
    mount: Path

    def again(self) -> None:
        """Mount what is on the disk, as after a power cut.

        A copy of it: somebody else's mount namespace may still hold the old mount, which stays dead.
        """
        subprocess.run(["umount", "-l", self.mount], check=True)
        copy = self.image.with_name(f"{self.image.name}.again")
        subprocess.run(["cp", "--sparse=always", self.image, copy], check=True)
        copy.replace(self.image)
        options = "loop,nouuid" if self.kind == "xfs" else "loop"
        subprocess.run(["mount", "-o", options, self.image, self.mount], check=True)


@contextlib.contextmanager
def disk(base: Path, kind: str) -> Iterator[Disk]:
    """Make and mount an image of a kind; skips, with the reason, where that cannot be done."""
    make, size = KINDS[kind]
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    if os.geteuid() != 0:
        pytest.skip("NEEDS ROOT to mount a disk that can lose its power: left out")
    if shutil.which(make.split()[0], path=path) is None:
        pytest.skip(f"{make.split()[0].upper()} IS NOT INSTALLED: power cuts on {kind} are left out")
    made = Disk(kind, base / f"{kind}.img", base / f"{kind}.mnt")
    made.mount.mkdir(parents=True)
    with open(made.image, "wb") as file:
        subprocess.run(["truncate", "-s", size, made.image], check=True, stdout=file)
    subprocess.run([*make.split(), made.image], check=True, env={**os.environ, "PATH": path})
    said = subprocess.run(
        ["mount", "-o", "loop", made.image, made.mount], check=False, capture_output=True, text=True
    )
    if said.returncode != 0:
        pytest.skip(f"A LOOP DEVICE CANNOT BE MOUNTED HERE ({said.stderr.strip()}): power cuts are left out")
    try:
        yield made
    finally:
        subprocess.run(["umount", "-l", made.mount], check=False)
