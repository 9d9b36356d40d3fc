"""requirements.txt can be installed by every Python the project supports, and names all of what is installed.

Read from the metadata of what is installed here: no network. `make prove-debian` installs it in bare systems.
"""

from __future__ import annotations

import tomllib
from importlib.metadata import Distribution, distributions
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

TOP = Path(__file__).parent.parent
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
#: the Python of Debian 12, to its last digit: pymdown-extensions 13 wants 3.11.5; and that of Debian 13
PYTHONS = ("3.11.2", "3.13.5")


def pins() -> dict[str, str]:
    lines = [line.partition("#")[0].strip() for line in (TOP / "requirements.txt").read_text().splitlines()]
    pairs = [line.partition("==")[::2] for line in lines if line]
    assert all(version for _, version in pairs), "requirements.txt: only lines NAME==VERSION"
    assert len({canonicalize_name(name) for name, _ in pairs}) == len(pairs), "a package is pinned twice"
    return {canonicalize_name(name): version for name, version in pairs}


def installed() -> dict[str, Distribution]:
    return {canonicalize_name(dist.name): dist for dist in distributions()}


def wanted(requires: list[str], extras: set[str], python: str) -> list[Requirement]:
    """Return what counts of some requirements, for a set of extras and a Python."""
    here = default_environment() | {
        "python_version": ".".join(python.split(".")[:2]),
        "python_full_version": python,
    }
    found = [Requirement(text) for text in requires]
    return [
        one for one in found
        if one.marker is None or any(one.marker.evaluate(here | {"extra": extra}) for extra in extras | {""})
    ]  # fmt: skip


def project_requires() -> list[str]:
    """Return what the project requires, with all that its extras add."""
    extras = [text for texts in PROJECT["optional-dependencies"].values() for text in texts]
    return [text for text in (*PROJECT["dependencies"], *extras) if not text.startswith("dittohead")]


def closure(python: str) -> dict[str, list[tuple[str, Requirement]]]:
    """Return each package that is installed for the tests, with who requires it and how."""
    dists = installed()
    asked = [("pyproject.toml", one) for one in wanted(project_requires(), set(), python)]
    done: set[tuple[str, frozenset[str]]] = set()
    found: dict[str, list[tuple[str, Requirement]]] = {}
    while asked:
        by, one = asked.pop()
        name, extras = canonicalize_name(one.name), frozenset(one.extras)
        found.setdefault(name, []).append((by, one))
        if (name, extras) not in done and name in dists:
            done.add((name, extras))
            asked += [(name, more) for more in wanted(dists[name].requires or [], set(extras), python)]
    return found


def test_what_is_installed_here_is_what_is_pinned() -> None:
    """The tests below read metadata; that of another version would prove nothing."""
    dists = installed()
    other = {
        name: dists[name].version
        for name, pin in pins().items()
        if name in dists and dists[name].version != pin
    }
    assert not other, f"other versions than requirements.txt names: {other}. Run: tools/setup test"


@pytest.mark.parametrize("python", PYTHONS)
def test_each_pin_can_be_installed_by_the_python_of_each_debian(python: str) -> None:
    dists = installed()
    refusing = {
        f"{name}=={pin}": wants
        for name, pin in pins().items()
        if name in dists and (wants := dists[name].metadata.get("Requires-Python"))
        and python not in SpecifierSet(wants, prereleases=True)
    }  # fmt: skip
    assert not refusing, f"Python {python} cannot install these; pin releases that it can: {refusing}"


@pytest.mark.parametrize("python", PYTHONS)
def test_each_pin_satisfies_what_the_others_require(python: str) -> None:
    pinned = pins()
    against = [
        f"{by} requires {one}, pinned is {pinned[name]}"
        for name, askers in closure(python).items() if name in pinned
        for by, one in askers if pinned[name] not in SpecifierSet(str(one.specifier), prereleases=True)
    ]  # fmt: skip
    assert not against


@pytest.mark.parametrize("python", PYTHONS)
def test_each_package_that_is_installed_is_pinned(python: str) -> None:
    """An unpinned one is another for each who installs, and old pips search for minutes."""
    missing = {name: sorted({by for by, _ in askers}) for name, askers in closure(python).items()}
    missing = {name: askers for name, askers in missing.items() if name not in pins()}
    assert not missing, f"not in requirements.txt, and who requires them: {missing}"


def test_nothing_is_pinned_that_nobody_requires() -> None:
    assert set(pins()) <= {name for python in PYTHONS for name in closure(python)}


def test_the_oldest_python_is_the_one_that_pyproject_promises() -> None:
    assert all(python in SpecifierSet(PROJECT["requires-python"]) for python in PYTHONS)
    assert PYTHONS[0] == "3.11.2"
