"""libopenjp2 is found by any name it may have, and where it is missing the error says what to install."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dittohead.toolkit.images import openjpeg
from dittohead.toolkit.images.options import ConvertOptions
from dittohead.toolkit.images.process import abilities
from dittohead.workers import convert


def test_the_library_is_found_by_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the linker's cache, where the names that are known are not there."""
    monkeypatch.setattr(openjpeg, "_SONAMES", ("libopenjp2.so.99",))
    assert openjpeg._Library().opj is not None


def test_what_is_missing_is_said_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the name of a package helps there."""
    monkeypatch.setattr(openjpeg, "_SONAMES", ("libopenjp2.so.99",))
    monkeypatch.setattr(openjpeg, "find_library", lambda name: None)
    with pytest.raises(OSError, match="apt-get install libopenjp2-7"):
        openjpeg._Library()


def test_a_library_of_another_kind_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has a fitting name and lacks the functions is as good as none."""
    monkeypatch.setattr(openjpeg, "_SONAMES", ("libc.so.6",))
    assert openjpeg._Library().opj is not None


@pytest.fixture
def _without(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(openjpeg, "_SONAMES", ())
    monkeypatch.setattr(openjpeg, "find_library", lambda name: None)
    openjpeg._library.cache_clear()
    yield
    openjpeg._library.cache_clear()


@pytest.mark.usefixtures("_without")
async def test_what_is_missing_reaches_check_and_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a step that writes JPEG 2000; another step does not need it."""
    assert openjpeg.version() == ("", openjpeg.MISSING)
    here = abilities()
    found = {
        **here,
        "openjpeg": "",
        "missing": {"jp2": openjpeg.version()[1]},
        "formats": [one for one in here["formats"] if one != "jp2"],
    }
    monkeypatch.setattr(convert, "abilities", lambda: found)
    worker, master = convert.ConvertWorker(), ConvertOptions(format="jp2")
    assert [said for said in worker.check(master) if "apt-get install libopenjp2-7" in said]
    wrong = [said async for good, said in worker.doctor(master, lambda name: "") if not good]
    assert [said for said in wrong if "apt-get install libopenjp2-7" in said]
    other = ConvertOptions(format="pyramid-tiff")
    assert worker.check(other) == []
    assert all([good async for good, _ in worker.doctor(other, lambda name: "")])


def test_this_machine_has_it() -> None:
    """As what starts the children says."""
    number, missing = openjpeg.version()
    assert number.startswith("2.")
    assert missing == ""
    assert abilities()["missing"] == {}
