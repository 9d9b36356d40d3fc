"""The public names: there when they are used, for programs and for type checkers alike."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

import dittohead


def test_type_checkers_and_programs_find_the_same_names_in_the_same_places() -> None:
    """The package says it twice: as imports for the ones, as a table for the others."""
    tree = ast.parse(Path(dittohead.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    said = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert said == dittohead._PLACES
    assert sorted([*said, "__version__"]) == sorted(dittohead.__all__)


def test_every_public_name_is_there() -> None:
    """And listed before it is used, as `dir` and shells that complete names do."""
    assert set(dittohead.__all__) <= set(dir(dittohead))
    for name, module in dittohead._PLACES.items():
        assert getattr(dittohead, name) is getattr(importlib.import_module(module), name)


def test_no_public_name_is_a_modules() -> None:
    """Importing the module would put it in the name's place."""
    assert {module.name for module in pkgutil.iter_modules(dittohead.__path__)} & set(
        dittohead.__all__
    ) == set()


def test_a_name_that_is_not_there_is_refused_as_anywhere() -> None:
    with pytest.raises(AttributeError, match="module 'dittohead' has no attribute 'Wroker'"):
        dittohead.Wroker  # noqa: B018
    with pytest.raises(ImportError):
        from dittohead import Wroker  # noqa: F401
