"""Placeholders: what an uploader chose as a name never becomes a path or an option of its own making."""

from __future__ import annotations

import os

import pytest

from dittohead.contract import placeholders
from dittohead.contract.placeholders import problems, render
from dittohead.contract.worker import Options
from dittohead.model.errors import ItemError

VALUES = {"name": "lab-1", "study": "..", "dash": "-rf", "dot": ".", "empty": ""}


def test_texts_in_lists_and_maps_are_filled_in() -> None:
    """Anywhere among the options; braces can be written doubled."""
    given = {"argv": ["x", "{name}/{name}", "{{name}}"], "n": 3, "deep": [{"a": "{name}"}]}
    assert render(given, VALUES) == {
        "argv": ["x", "lab-1/lab-1", "{name}"],
        "n": 3,
        "deep": [{"a": "lab-1"}],
    }


@pytest.mark.parametrize("text", ["/x/{study}/y", "{dash}", "/a/{dot}{dot}/b", "/x/{empty}/y", "/x/{dot}"])
def test_a_name_cannot_climb_or_become_an_option(text: str) -> None:
    """`..` as a study, a leading dash, nothing at all."""
    with pytest.raises(ItemError, match="cannot be filled in"):
        render(text, VALUES)


def test_problems_are_found_before_any_folder_comes() -> None:
    """Unknown names and single braces."""
    assert [p for p, _ in problems("{a} {b} } {", frozenset({"a"}))] == [
        "there is no placeholder {b}",
        'a single "}"; write "}}" for the character itself',
        'a single "{"; write "{{" for the character itself',
    ]


class _Worker:
    Options = Options
    per_file = frozenset({"service"})
    uris = frozenset({"base", "service", "see_also.id"})


class _WithDefaults(Options):
    path: str = "{name}.tar"
    label: str = "{file} of {name}"
    plain: str = "a"


class _Filled(_Worker):
    Options = _WithDefaults
    per_file = frozenset({"label"})


def test_defaults_are_filled_in_as_what_is_written_is() -> None:
    """But for templates for each file, which their workers fill in."""
    assert placeholders.render_options({}, {"name": "{x}"}, _Filled()) == {"path": "{x}.tar"}
    assert placeholders.render_options({"path": "a"}, {"name": "{x}"}, _Filled()) == {"path": "a"}


def test_a_value_is_encoded_as_it_is_put_into_a_uri() -> None:
    """What the configuration says stays as it is; other options get the name itself."""
    name = os.fsdecode(b"what? 100%/caf\xe9 {x}")
    options = {
        "base": "https://example.org/a%20b/{name}?",
        "service": "https://example.org/{name}/{path}",
        "see_also": [{"id": "https://example.org/{name}.xml", "label": "{name}"}],
        "label": "{name}",
    }
    encoded = "what%3F%20100%25/caf%E9%20%7Bx%7D"
    assert placeholders.render_options(options, {"name": name}, _Worker()) == {
        "base": f"https://example.org/a%20b/{encoded}?",
        "service": f"https://example.org/{encoded}/{{path}}",
        "see_also": [{"id": f"https://example.org/{encoded}.xml", "label": name}],
        "label": name,
    }
