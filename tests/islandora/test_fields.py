"""What happens to a description."""

from __future__ import annotations

from typing import Any

import pytest

from dittohead.model.description import Dated, Description
from dittohead.model.errors import ItemError
from dittohead.workers.islandora.fields import changes, described, edtf, fitted, kept, page_title
from dittohead.workers.islandora.vocabulary import USES, bundle_of, extension, media_type


@pytest.mark.parametrize(
    ("date", "text"),
    [
        ({"begin": "1951"}, "1951"),
        ({"begin": "1951-03", "end": "1951-08"}, "1951-03/1951-08"),
        ({"begin": "1951-03-02", "end": "1951-03-02"}, "1951-03-02"),
        ({"begin": "1951-13"}, ""),
        ({"begin": "1951-02-30"}, ""),
        ({"begin": "1951-02", "end": "1951-02-29"}, ""),
        ({"begin": "1952-02-29"}, "1952-02-29"),
        ({"begin": "0000"}, "0000"),
        ({"begin": "circa 1951"}, ""),
        ({"begin": "1951", "end": "later"}, ""),
        ({"expression": "undated"}, ""),
    ],
)
def test_dates_are_edtf_or_left_out(date: dict[str, Any], text: str) -> None:
    """A date that the site would refuse must not fail the object."""
    assert edtf(Dated(**date)) == text


def test_dates_go_to_the_field_of_what_they_are_of() -> None:
    """Unknown ones to the general field; the same twice once."""
    dates = [
        {"label": label, "begin": "1951"}
        for label in ("creation", "Creation", "publication", "copyright", "other")
    ]
    fields = described(Description.model_validate({"identifier": "x", "title": "y", "dates": dates}))
    assert fields["field_edtf_date_created"] == [{"value": "1951"}]
    assert {"field_edtf_date_issued", "field_copyright_date", "field_edtf_date"} <= set(fields)


def test_titles_fit_and_say_where_they_were_cut() -> None:
    """With the page's number, whatever it is."""
    assert fitted("a  b\n c") == "a b c"
    assert len(fitted("x" * 300)) == 255
    assert page_title("x" * 300, 1000).endswith("…, page 1000")
    assert len(page_title("x" * 300, 1000)) == 255


def test_an_untitled_object_is_called_by_its_identifier_and_a_too_long_one_refused() -> None:
    """A title is required there."""
    assert described(Description(identifier="x", title=" "))["title"] == [{"value": "x"}]
    with pytest.raises(ItemError, match="more than 255"):
        described(Description(identifier="x" * 256, title="t"))


def test_only_fields_that_hold_something_else_are_changed() -> None:
    """Drupal adds keys to what it was given, and gives numbers as text."""
    there = {"a": [{"value": "1", "processed": "1"}], "b": [], "c": [{"value": "x"}]}
    wanted: dict[str, list[dict[str, Any]]] = {
        "a": [{"value": 1}],
        "b": [{"value": 2}],
        "c": [{"value": "y"}],
    }
    assert changes(there, wanted, "nothing") == {}
    assert changes(there, wanted, "empty") == {"b": [{"value": 2}]}
    assert set(changes(there, wanted, "all")) == {"b", "c"}
    assert kept(there, wanted) == ["b", "c"]


def test_files_go_to_the_media_type_that_takes_them() -> None:
    """Images that the site's image field refuses are files; a site may have it otherwise."""
    original = USES["original"]
    assert [bundle_of(f"a.{ext}", original, {}) for ext in ("JPG", "tif", "jp2", "pdf", "")] == [
        "image",
        "file",
        "file",
        "document",
        "file",
    ]
    assert bundle_of("a.txt", USES["extracted-text"], {}) == "extracted_text"
    assert bundle_of("a.jpg", original, {"jpg": "file"}) == "file"
    assert [media_type(name) for name in ("a.jp2", "a.tif", "a.unknown1")] == [
        "image/jp2",
        "image/tiff",
        "application/octet-stream",
    ]
    assert [extension(name) for name in (".jpg", "a.b.JPG", "a")] == ["", "jpg", ""]
