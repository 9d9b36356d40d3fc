"""The wheel and the source distribution of this checkout, built as a packager would, without a network."""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

TOP = Path(__file__).parent.parent.parent


@cache
def tracked() -> list[str]:
    """Return what git keeps of this checkout, and what it would keep if it were added; paths, sorted."""
    said = subprocess.run(
        ["git", "-C", TOP, "ls-files", "-coz", "--exclude-standard"],
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
