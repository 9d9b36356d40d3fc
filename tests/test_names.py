"""One thing has one name, and a name means one thing."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

import dittohead

HOME = Path(dittohead.__file__).parent

#: Its classes carry the words of the API: their names are those of the definitions in openapi.json.
SHAPES = "web/api/shapes.py"

#: Words that once had several meanings: the beginnings of the places where the one that is left belongs.
ONE_MEANING = {
    "look": ("contract/source.py", "intake/", "sources/", "cli/source_rounds.py"),
    "settle": ("contract/source.py", "intake/", "sources/", "store/items.py"),
    "room": ("contract/worker.py", "engine/waiting_room.py", "workers/rsync/"),
}


def defined_twice(modules: dict[str, ast.Module]) -> dict[str, list[str]]:
    """Return the public names of classes that more than one module defines, each with these modules."""
    places: dict[str, list[str]] = defaultdict(list)
    for place, module in modules.items():
        for node in ast.walk(module):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(place)
    return {name: found for name, found in places.items() if len(found) > 1}


def test_a_name_of_a_class_means_one_class() -> None:
    """Who reads `Finding` need not look whose it is: it is a `BagFindings` or an `OcflFinding`."""
    modules = {path.relative_to(HOME).as_posix(): path for path in sorted(HOME.rglob("*.py"))}
    parsed = {place: ast.parse(path.read_text()) for place, path in modules.items() if place != SHAPES}
    assert defined_twice(parsed) == {}


@pytest.mark.parametrize("word", ONE_MEANING)
def test_a_word_means_one_thing(word: str) -> None:
    """A look is a source's at what lies upstream: what is done elsewhere is a check, a scan, a comparison."""
    modules = {path.relative_to(HOME).as_posix(): path for path in sorted(HOME.rglob("*.py"))}
    elsewhere = [
        f"{place}: {node.name}"
        for place, path in modules.items()
        if not place.startswith(ONE_MEANING[word])
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and re.search(rf"(^|_){word}(s|ed|ing|able)?(_|$)|{word.title()}", node.name)
    ]
    assert elsewhere == []


def test_a_class_that_is_defined_twice_is_found() -> None:
    """In two modules, also below another class; not what is private."""
    texts = {
        "a.py": "class Same: ...\nclass _Own: ...",
        "b.py": "class Above:\n class Same: ...\nclass _Own: ...",
    }
    assert defined_twice({place: ast.parse(text) for place, text in texts.items()}) == {
        "Same": ["a.py", "b.py"]
    }
