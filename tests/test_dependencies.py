"""What is imported is declared in pyproject.toml; what is declared for the tests is used by them."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

TOP = Path(__file__).parent.parent

#: Used by others: stubs by mypy, plugins by pytest, programs by name.
BY_OTHERS = {"types-pyyaml", "types-jsonschema", "pytest-asyncio", "pytest-timeout", "pytest-xdist"}


def test_each_import_is_declared_and_each_declared_package_is_imported() -> None:
    """As `make check` sees it; what comes with another package may go with it."""
    command = [str(Path(sys.executable).parent / "deptry"), "--no-ansi", "dittohead"]
    found = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


def _unused(declared: list[str], text: str) -> set[str]:
    modules: dict[str, set[str]] = {}
    for module, names in packages_distributions().items():
        for name in names:
            modules.setdefault(canonicalize_name(name), set()).add(module)
    unused = set()
    for line in declared:
        name = canonicalize_name(Requirement(line).name)
        found = distribution(name)
        programs = {point.name for point in found.entry_points.select(group="console_scripts")}
        programs |= {file.name for file in found.files or () if file.parent.name == "bin"}
        words = programs | modules.get(name, set()) | {name}
        if not any(re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text) for word in words):
            unused.add(name)
    return unused - BY_OTHERS


def test_each_package_of_the_tests_is_used() -> None:
    """By a test, a tool, a benchmark or the Makefile."""
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    declared = [line for line in project["optional-dependencies"]["test"] if not line.startswith("dittohead")]
    homes = [path for home in ("tests", "tools", "benchmarks") for path in (TOP / home).rglob("*")]
    texts = [
        path for path in (*homes, TOP / "Makefile") if path.is_file() and path.suffix in ("", ".py", ".sh")
    ]
    text = "\n".join(path.read_text(errors="replace") for path in texts if path != Path(__file__))
    assert _unused(declared, text) == set()
    assert _unused(["mypy>=1"], "mypycology") == {"mypy"}
