"""Docstrings say what a caller has to know: what each argument means, and how a class of one's own begins."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

import dittohead
from dittohead import Done, Item, ItemError, Sighting, Source, Worker
from dittohead.contract.source import Fetch
from dittohead.intake.look import DrySourceLook
from dittohead.store import Store
from dittohead.store.database import sqlite_url
from tests.support.context import LoneContext
from tests.support.trees import read_tree, tree

HOME = Path(dittohead.__file__).parent

#: From so many arguments on a function lists them; `self`, `cls` and the store's `connection` do not count.
MANY = 4

Function = ast.FunctionDef | ast.AsyncFunctionDef


def trees() -> dict[str, ast.Module]:
    """Return each module's tree by its place below dittohead/; migrations are written once and never called."""
    found = {path.relative_to(HOME).as_posix(): path for path in sorted(HOME.rglob("*.py"))}
    return {name: ast.parse(path.read_text()) for name, path in found.items() if "/migrations/" not in name}


def methods_by_class(modules: dict[str, ast.Module]) -> dict[str, tuple[set[str], set[str]]]:
    """Return (names of its bases, names of its methods) of each class by its name."""
    found: dict[str, tuple[set[str], set[str]]] = {}
    for module in modules.values():
        for node in ast.walk(module):
            if isinstance(node, ast.ClassDef):
                bases, methods = found.setdefault(node.name, (set(), set()))
                bases |= {ast.unparse(base).partition("[")[0].rpartition(".")[2] for base in node.bases}
                methods |= {one.name for one in node.body if isinstance(one, Function)}
    return found


def overrides(name: str, owner: str, classes: dict[str, tuple[set[str], set[str]]]) -> bool:
    """Tell whether a class above this one has a method of the name, whose docstring holds for both."""
    bases, waiting = set(), {owner}
    while waiting:
        above, _ = classes.get(waiting.pop(), (set(), set()))
        waiting |= above - bases
        bases |= above
    return any(name in classes[base][1] for base in bases if base in classes)


def public(body: list[ast.stmt], owner: str = "") -> Iterator[tuple[str, Function]]:
    """Yield (class or "", function) of what others may call; commands are called by click."""
    for node in body:
        if getattr(node, "name", "_").startswith("_"):
            continue
        if isinstance(node, ast.ClassDef):
            yield from public(node.body, node.name)
        elif isinstance(node, Function) and not any(map(_is_click, node.decorator_list)):
            yield owner, node


def _is_click(decorator: ast.expr) -> bool:
    said = ast.unparse(decorator)
    return "click." in said or ".command" in said


def counted(function: Function) -> int:
    """Return how many arguments a caller thinks about."""
    given = function.args
    named = [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    more = [one for one in (given.vararg, given.kwarg) if one is not None]
    return len([name for name in named if name not in ("self", "cls", "connection")]) + len(more)


def bare(modules: dict[str, ast.Module]) -> set[str]:
    """Return "place: function" of those with many arguments and no list of them."""
    classes = methods_by_class(modules)
    return {
        f"{place}: {f'{owner}.' if owner else ''}{function.name}"
        for place, module in modules.items()
        for owner, function in public(module.body)
        if counted(function) >= MANY
        and not (owner and overrides(function.name, owner, classes))
        and "Args:\n" not in (ast.get_docstring(function) or "")
    }


def test_functions_with_many_arguments_say_what_they_mean() -> None:
    """One that is added gets a section `Args:` with units, and what None and "" mean."""
    assert bare(trees()) == set()


def test_a_function_without_its_arguments_is_found() -> None:
    """In a module and in a class; not what is private, what overrides, or what says them."""
    said = '"""Do.\n\n    Args:\n        a: it.\n    """'
    text = f"""
def plain(a, b, *, c, **d): "Do."
def said(a, b, c, d):
    {said}
def _private(a, b, c, d): "Do."
def stored(connection, a, b, c): "Do."
@click.command()
def typed(a, b, c, d): "Do."
class Above:
    async def method(self, a, b, c, d=None): "Do."
class Below(other.Above[int]):
    async def method(self, a, b, c, d=None): ...
    def own(self, a, b, c, *d): "Do."
"""
    assert bare({"x.py": ast.parse(text)}) == {"x.py: plain", "x.py: Above.method", "x.py: Below.own"}


def example(of: type) -> dict[str, Any]:
    """Run the code under "A whole one:" in a class's docstring; return the names that it makes."""
    code = textwrap.dedent(inspect.getdoc(of).split("A whole one:\n")[1])  # type: ignore[union-attr]  # it has one
    made: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, f"{of.__name__}.__doc__", "exec", dont_inherit=True), made)
    return made


async def test_the_example_of_a_worker_runs(tmp_path: Path) -> None:
    """As it stands in the docstring: it does its step, and refuses a folder as it says."""
    worker: Worker[Any] = example(Worker)["CountWorker"]()
    ctx = LoneContext(tmp_path, tree(tmp_path / "scans", {"p1.tif": "one", "p2.tif": "two"}))
    assert await worker.run(ctx, worker.Options.model_validate({})) == Done(detail="2 files")
    with pytest.raises(ItemError, match="too few"):
        await worker.run(ctx, worker.Options.model_validate({"least": 3}))


class LoneFetch(Fetch):
    """Fetches of one folder without an engine."""

    def __init__(self, root: Path, wanted: list[Item]) -> None:
        self.root, self.wanted, self.log = root, wanted, structlog.get_logger()
        self.done: list[str] = []

    async def items(self) -> AsyncIterator[Item]:
        for item in self.wanted:
            yield item

    async def fetched(self, item: Item, how: str) -> None:
        self.done.append(item.key)

    async def changed(self, now: Sighting) -> None:
        raise AssertionError(now)

    async def gone(self, item: Item) -> None:
        raise AssertionError(item)

    async def refuse(self, item: Item, why: str) -> None:
        raise AssertionError(why)


async def test_the_example_of_a_source_runs(tmp_path: Path) -> None:
    """As it stands in the docstring: it sees two items, of which one has the prefix, and fetches it."""
    source: Source[Any] = example(Source)["NotesSource"]()
    look = DrySourceLook(Store.open(sqlite_url(tmp_path)), "notes", "tues")
    root = tree(tmp_path / ".tuesday", {})
    async with source.open(source.Options.model_validate({}), lambda name: "") as upstream:
        await upstream.look(look)
        (seen,) = look.found
        fetch = LoneFetch(
            root, [Item(id=1, key=seen.key, path=seen.path, version=seen.version, size=seen.size, data={})]
        )
        await upstream.fetch(fetch)
    assert fetch.done == ["tuesday"]
    assert read_tree(root) == {b"note.txt": b"rain"}
