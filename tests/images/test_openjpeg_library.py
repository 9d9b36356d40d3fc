"""libopenjp2 is found by any name it may have, and where it is missing the error says what to install."""

from __future__ import annotations

import pytest

from dittohead.toolkit.images import openjpeg


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
