"""The wheel and the source distribution of this checkout, built as a packager would, and the program installed from it.

All of it without a network.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from functools import cache
from pathlib import Path

TOP = Path(__file__).parent.parent.parent


#: Names with a dot at the top of the sources that are of them; every other one is of a tool.
HIDDEN = {".ci", ".containerignore", ".editorconfig", ".github", ".gitignore", ".pre-commit-config.yaml"}


def made(path: Path) -> bool:
    """Tell whether a file is none of the sources: made here, or by who packed them."""
    parts = path.relative_to(TOP).parts
    hidden = any(part.startswith(".") and part not in HIDDEN for part in parts)
    return (
        hidden
        or parts[0] in ("build", "dist", "site", "PKG-INFO", "setup.cfg")
        or any(part == "__pycache__" or part.endswith((".egg-info", ".pyc")) for part in parts)
    )


@cache
def tracked() -> list[str]:
    """Return what git keeps of this checkout, and what it would keep if it were added; paths, sorted."""
    if not (TOP / ".git").exists():  # unpacked from a source distribution
        return sorted(
            str(path.relative_to(TOP)) for path in TOP.rglob("*") if path.is_file() and not made(path)
        )
    said = subprocess.run(
        # A checkout may be another user's than root, who runs the tests.
        ["git", "-c", f"safe.directory={TOP}", "-C", TOP, "ls-files", "-coz", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted(name for name in said.stdout.split("\0") if name and (TOP / name).exists())


def copy(target: Path, *below: str) -> Path:
    """Copy what git keeps, or what of it lies below some directories, and return the copy."""
    for name in tracked():
        if not below or name.startswith(below):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TOP / name, target / name)
    return target


def build(sources: Path, out: Path, kind: str = "wheel") -> Path:
    """Build a wheel or an sdist by setuptools' door for builders, and return it.

    Source: PEP 517, build_wheel and build_sdist; run in the directory of the sources.
    """
    out.mkdir(parents=True, exist_ok=True)
    script = f"import sys\nfrom setuptools import build_meta\nbuild_meta.build_{kind}(sys.argv[1])"
    said = subprocess.run(
        [sys.executable, "-c", script, out.resolve()],
        cwd=sources,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stdout[-2000:] + said.stderr[-2000:]
    assert "Warning:" not in said.stderr, said.stderr[-3000:]
    (built,) = out.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return built


@cache
def installed() -> Path:
    """Return a virtual environment in which the wheel is installed as users install it, and no checkout is seen.

    The packages it needs are the tests' own. It is kept in build/, and made again when the sources have changed.
    """
    sources = [name for name in tracked() if name.startswith("dittohead/") or name == "pyproject.toml"]
    digest = hashlib.sha256(repr((sys.executable, sys.version)).encode())
    for name in sources:
        digest.update(name.encode() + b"\0" + (TOP / name).read_bytes())
    place = TOP / "build" / "installed" / digest.hexdigest()[:16]
    place.parent.mkdir(parents=True, exist_ok=True)
    # Files of tests run in parallel.
    with open(place.parent / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "whole").exists():
            _clear(place.parent)
            _install(place)
            (place / "whole").touch()
    return place


def site_of(place: Path) -> Path:
    """Return where a virtual environment has its packages."""
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(place), "platbase": str(place)}))


def _clear(place: Path) -> None:
    """Remove what was made of older sources, and is not of a run that is still under way."""
    for old in place.iterdir():
        if old.is_dir() and (old.stat().st_mtime < time.time() - 86_400 or not (old / "whole").exists()):
            shutil.rmtree(old)


def _install(place: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        sources = copy(Path(scratch) / "sources", "dittohead/", "pyproject.toml", "README.md", "LICENSE")
        wheel = build(sources, Path(scratch) / "out")
        venv.create(place, with_pip=False, symlinks=True)
        site = site_of(place)
        # A path in a .pth file is appended; .pth files in it, such as the one that leads to the checkout, are not read.
        (site / "tests-packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
        pip = [
            sys.executable,
            "-m",
            "pip",
            "--python",
            place / "bin" / "python",
            "--disable-pip-version-check",
        ]
        subprocess.run(
            [*pip, "install", "-q", "--no-index", "--no-deps", "--ignore-installed", wheel],
            check=True,
            capture_output=True,
        )
    where = subprocess.check_output(
        [place / "bin" / "python", "-c", "import dittohead; print(dittohead.__file__)"], cwd="/", text=True
    )
    assert Path(where.strip()).is_relative_to(site), f"another dittohead is imported: {where}"


def program() -> list[str]:
    """Return how dittohead is run by tests of the real thing: the program of an installed wheel.

    TEST_CHECKOUT=1 takes the checkout itself, which is what a debugger wants.
    """
    if os.environ.get("TEST_CHECKOUT"):
        return [sys.executable, "-m", "dittohead"]
    return [str(installed() / "bin" / "dittohead")]
