"""The example packages of docs/examples, laid out as an installation would, in a directory of the test's own.

Building a wheel wants tools from the network; what an installed package is, besides its files, is its entry
points and programs. Source: packaging.python.org, "Recording installed projects", "Entry points specification".
"""

from __future__ import annotations

import shutil
import sys
import tomllib
from pathlib import Path

from tests.docs.pages import DOCS


def install(name: str, base: Path) -> Path:
    """Install an example and return the directory that holds it, with its programs in bin/."""
    source, target = DOCS / "examples" / name, base / "site"
    about = tomllib.loads((source / "pyproject.toml").read_text())
    project = about["project"]
    for package in about["tool"]["setuptools"]["packages"]:
        shutil.copytree(source / package, target / package, ignore=shutil.ignore_patterns("__pycache__"))
    info = target / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    groups = {"console_scripts": project.get("scripts", {}), **project.get("entry-points", {})}
    lines = [
        line for group, points in groups.items()
        for line in (f"[{group}]", *(f"{key} = {value}" for key, value in points.items()))
    ]  # fmt: skip
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    (target / "bin").mkdir()
    for program, where in project.get("scripts", {}).items():
        module, _, function = where.partition(":")
        path = target / "bin" / program
        path.write_text(
            # As pip writes it: the kernel's own line would end at a blank in the path.
            f"#!/bin/sh\n'''exec' '{sys.executable}' \"$0\" \"$@\"\n' '''\nimport sys\nsys.path.insert(0, {str(target)!r})\n"
            f"from {module} import {function}\nsys.exit({function}())\n"
        )
        path.chmod(0o755)
    return target
