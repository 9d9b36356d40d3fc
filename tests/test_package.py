"""What is packed: the wheel and the source distribution hold all that is tracked, and nothing else."""

from __future__ import annotations

import subprocess
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.wheel import HIDDEN, TOP, build, copy, tracked

#: what an editor, Python and a merge leave in a checkout
LITTER = (
    "dittohead/__pycache__/model.cpython-311.pyc", "dittohead/web/pages/templates/front/.base.html.swp", "dittohead/old.pyc",
    "dittohead/web/pages/static/page.css~", "tests/__pycache__/x.cpython-311.pyc", "docs/index.md~",
)  # fmt: skip
#: what setuptools writes besides
OF_THE_WHEEL = {
    f"dittohead-X.dist-info/{name}"
    for name in (
        "METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", "top_level.txt",
    )
}  # fmt: skip
OF_THE_SDIST = {"PKG-INFO", "setup.cfg", *(
    f"dittohead.egg-info/{name}"
    for name in ("PKG-INFO", "SOURCES.txt", "dependency_links.txt", "entry_points.txt", "requires.txt", "top_level.txt")
)}  # fmt: skip


#: where a wheel installs the man pages that `make man` has made; a source distribution holds nothing that is made
PAGES = {
    f"dittohead-X.data/data/share/man/{name}" for name in ("man1/dittohead.1", "man5/dittohead-config.5")
}


@dataclass(frozen=True)
class Packed:
    """A build of the checkout: names and contents, the version in names replaced by X."""

    wheel: dict[str, bytes]
    sdist: dict[str, bytes]
    again: dict[str, bytes]  #: the wheel that is built from the sdist


def in_wheel(path: Path) -> dict[str, bytes]:
    version = path.name.split("-")[1]
    with zipfile.ZipFile(path) as file:
        return {
            name.replace(f"-{version}.", "-X."): file.read(name)
            for name in file.namelist()
            if name[-1] != "/"
        }


def in_sdist(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as file:
        return {
            member.name.partition("/")[2]: read.read()
            for member in file.getmembers() if (read := file.extractfile(member)) is not None
        }  # fmt: skip


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    """Built from a copy with litter, and with man pages as `make man` leaves them."""
    base = tmp_path_factory.mktemp("package")
    sources = copy(base / "sources")
    for name in (*LITTER, "build/man/man1/dittohead.1", "build/man/man5/dittohead-config.5"):
        (sources / name).parent.mkdir(parents=True, exist_ok=True)
        (sources / name).write_bytes(b"x")
    # First the sdist: a wheel built before leaves its lists behind, which would feed it.
    sdist = build(sources, base / "sdist", "sdist")
    (base / "unpacked").mkdir()
    subprocess.run(["tar", "-C", base / "unpacked", "-xf", sdist], check=True)
    (unpacked,) = (base / "unpacked").iterdir()
    wheel, again = build(sources, base / "wheel"), build(unpacked, base / "again")
    return Packed(in_wheel(wheel), in_sdist(sdist), in_wheel(again))


def test_the_wheel_holds_all_that_is_tracked_of_the_program_and_nothing_else(packed: Packed) -> None:
    """13 templates were missing, and every page of an installed copy answered 500."""
    assert set(packed.wheel) - OF_THE_WHEEL - PAGES == {
        name for name in tracked() if name.startswith("dittohead/")
    }
    assert set(packed.wheel) >= PAGES


def test_the_source_distribution_holds_all_that_is_tracked_and_nothing_else(packed: Packed) -> None:
    """Tests, docs and tools, too: who packs it for a distribution runs and installs them."""
    assert set(packed.sdist) - OF_THE_SDIST == set(tracked())


def test_a_wheel_built_from_the_source_distribution_is_the_same(packed: Packed) -> None:
    assert set(packed.again) == set(packed.wheel) - PAGES
    differing = {name for name in packed.again if packed.wheel[name] != packed.again[name]}
    assert differing == {"dittohead-X.dist-info/RECORD"}  # it lists the man pages


def test_the_wheel_names_its_programs_steps_and_sources(packed: Packed) -> None:
    points = packed.wheel["dittohead-X.dist-info/entry_points.txt"].decode()
    for line in (
        "[console_scripts]",
        "dittohead = dittohead.cli:main",
        "[dittohead.workers]",
        "[dittohead.sources]",
    ):
        assert line in points.splitlines()


def test_the_licence_is_in_all_of_them_and_named_by_its_expression(packed: Packed) -> None:
    """Who packs it for a distribution, or asks a lawyer, finds it where each of them looks."""
    text = (TOP / "LICENSE").read_bytes()
    for found in (packed.wheel, packed.again):
        assert found["dittohead-X.dist-info/licenses/LICENSE"] == text
        about = found["dittohead-X.dist-info/METADATA"].decode().splitlines()
        assert {"License-Expression: MIT", "License-File: LICENSE"} <= set(about)
    assert packed.sdist["LICENSE"] == text
    assert b"the dittohead authors" in text


def test_hidden_files_of_the_sources_are_known_where_there_is_no_git() -> None:
    """An unpacked source distribution has no list of what is tracked: the names stand in the tests."""
    assert {name.partition("/")[0] for name in tracked() if name[0] == "."} == HIDDEN
