"""What the code says of itself: modules' first sentences, and the members of the contract."""

from __future__ import annotations

import ast
import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dittohead

TOP = Path(__file__).resolve().parent.parent
PACKAGE = TOP / "dittohead"


def sentence(text: str | None) -> str:
    """Return the first paragraph of a docstring on one line."""
    return " ".join((text or "").strip().split("\n\n")[0].split())


def said(path: Path) -> str:
    """Return what a module says that it is for."""
    return sentence(ast.get_docstring(ast.parse(path.read_text())))


def rooms() -> Iterator[tuple[Path, list[Path]]]:
    """Yield each package with its modules; revisions of the store are a series, and are left out."""
    for place in sorted([PACKAGE, *(path.parent for path in PACKAGE.rglob("*/__init__.py"))]):
        if place.name != "versions":
            yield place, sorted(path for path in place.glob("*.py") if path.name != "__init__.py")


def tree(escaped: Any) -> list[str]:
    """Return the packages as a table, then the modules of each."""
    found = list(rooms())
    lines = ["### Packages", "", "| package | modules | what it is |", "| --- | --- | --- |"]
    for place, modules in found:
        about = escaped(said(place / "__init__.py"))
        lines.append(f"| `{place.relative_to(TOP)}/` | {len(modules)} | {about} |")
    for place, modules in found:
        if modules:
            lines += ["", f"### Modules of `{place.relative_to(TOP)}/`", ""]
            lines += ["| module | what it is |", "| --- | --- |"]
            lines += [f"| `{path.name}` | {escaped(said(path))} |" for path in modules]
    return lines


def layers() -> list[str]:
    """Return who may import whom, as `make check` holds it: from the top down."""
    contracts = tomllib.loads((TOP / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (whole,) = (one for one in contracts if one.get("containers") == ["dittohead"])
    lines = ["| layer | may import every layer below |", "| --- | --- |"]
    for number, layer in enumerate(whole["layers"], 1):
        names = ", ".join(f"`{name.strip()}`" for name in layer.split("|"))
        lines.append(f"| {number} | {names} |")
    lines += ["", "All rules that `make check` holds:", ""]
    return lines + [f"{number}. {one['name'].partition('. ')[2]}." for number, one in enumerate(contracts, 1)]


#: The contract, by who needs it: what is written, what it is given, what it says.
PARTS: dict[str, tuple[str, ...]] = {
    "For workers": (
        "Worker", "Options", "StepContext", "Inputs", "Made", "Recipe", "Planned", "Done", "Wait",
        "Freeze", "Remake",
        "UndoContext", "VerifyContext",
    ),
    "For sources": (
        "Source", "SourceOptions", "Upstream", "Look", "Fetch", "Sighting", "Item", "Order",
        "Keep", "Catalogue", "Told", "Listing", "Leaving", "Command", "Panel", "SourceStopped",
    ),
    "For both": (
        "Entry", "Output", "Location", "Use", "Event", "EventType", "Described", "Description",
        "DittoheadError", "ConfigError", "StepError", "ItemError", "TransientError", "TargetError",
        "Completed", "Stop", "StepResult", "durable_file", "in_thread", "run", "sha256_file",
    ),
}  # fmt: skip


def contract(escaped: Any) -> list[str]:
    """Return every public name with its members."""
    lines = []
    for title, names in PARTS.items():
        lines += [f"## {title}", ""]
        for name in names:
            made = getattr(dittohead, name)
            lines += [f"### {name}", ""]
            lines += described(name, made, escaped)
    return lines


def described(name: str, made: Any, escaped: Any) -> list[str]:
    """Return what one public name is: a class with its members, a function, or either of two classes."""
    if inspect.isfunction(made):
        text = inspect.getdoc(made)
        waits = "await " if inspect.iscoroutinefunction(made) else ""
        return [
            f"`{waits}{name}{shape(made)}`",
            "",
            *plain(text),
            "",
            *table("argument", given(text), escaped),
        ]
    if not inspect.isclass(made):
        return [f"One of {' and '.join(f'`{one.__name__}`' for one in made.__args__)}.", ""]
    lines = [*plain(made.__doc__), ""]
    lines += table("made with", given(made.__doc__), escaped)
    return [*lines, *table("member", list(members(made)), escaped)]


def table(what: str, rows: list[tuple[str, str]], escaped: Any) -> list[str]:
    """Return rows as a table; nothing where there are none."""
    if not rows:
        return []
    shown = [f"| `{escaped(name)}` | {escaped(about)} |" for name, about in rows]
    return [f"| {what} | what it is |", "| --- | --- |", *shown, ""]


def paragraphs(text: str | None) -> list[str]:
    """Return a docstring's paragraphs; what begins with "Returns:" or "Raises:" is one of its own."""
    return re.split(r"\n\n|\n(?=Returns:|Raises:|On )", inspect.cleandoc(text or ""))


def plain(text: str | None) -> list[str]:
    """Return a docstring without the list of its arguments and without notes on the code below it."""
    return "\n\n".join(one for one in paragraphs(text) if not one.startswith(("Args:", "    #", "# "))).split(
        "\n"
    )


def given(text: str | None) -> list[tuple[str, str]]:
    """Return the arguments that a docstring lists, with what it says of each."""
    found: list[tuple[str, str]] = []
    for one in paragraphs(text):
        for line in one.splitlines()[1:] if one.startswith("Args:") else ():
            name, colon, about = line.strip().partition(": ")
            if colon and not line.startswith("     "):
                found.append((name, about))
            elif found:
                found[-1] = (found[-1][0], f"{found[-1][1]} {line.strip()}")
    return found


def shape(function: Any) -> str:
    """Return a function's arguments, as they are called, without their types."""
    source = inspect.cleandoc("\n" + inspect.getsource(inspect.unwrap(function)))
    node = ast.parse(source).body[0]
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    # As they are written: 0o640 is not to be read as 416.
    node.args.defaults = [ast.Name(ast.get_source_segment(source, one) or "") for one in node.args.defaults]
    return arguments(node)


def arguments(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Return "(ctx, options)" of a definition; what is given to it as itself is left out."""
    given = node.args
    bare = ast.arguments(
        posonlyargs=[],
        args=[
            ast.arg(one.arg) for one in [*given.posonlyargs, *given.args] if one.arg not in ("self", "cls")
        ],
        vararg=given.vararg and ast.arg(given.vararg.arg),
        kwonlyargs=[ast.arg(one.arg) for one in given.kwonlyargs],
        kw_defaults=given.kw_defaults,
        kwarg=given.kwarg and ast.arg(given.kwarg.arg),
        defaults=given.defaults,
    )
    return f"({ast.unparse(bare)})"


def members(made: type) -> Iterator[tuple[str, str]]:
    """Yield (how it is written, what it is) of a class's own public members, in their order."""
    source = inspect.getsource(made)
    lines = inspect.cleandoc("\n" + source).splitlines()
    (node,) = ast.parse("\n".join(lines)).body
    assert isinstance(node, ast.ClassDef)
    for inner in node.body:
        if isinstance(inner, ast.AnnAssign | ast.Assign):
            target = inner.target if isinstance(inner, ast.AnnAssign) else inner.targets[0]
            name = ast.unparse(target)
            if not name.startswith("_") and name != "model_config":
                yield name, about(lines, inner) or meaning(inner.value) or kind(inner)
        elif isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef) and not inner.name.startswith("_"):
            waits = "await " if isinstance(inner, ast.AsyncFunctionDef) and not yields(inner) else ""
            waits = (
                "async for ... in " if yields(inner) and isinstance(inner, ast.AsyncFunctionDef) else waits
            )
            called = (
                ""
                if any(ast.unparse(one) == "property" for one in inner.decorator_list)
                else arguments(inner)
            )
            yield f"{waits}{inner.name}{called}", sentence(ast.get_docstring(inner))


def yields(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Tell whether a function gives one thing after the other."""
    return any(isinstance(inner, ast.Yield) for inner in ast.walk(node))


def about(lines: list[str], node: ast.stmt) -> str:
    """Return the comment behind an assignment, or the one above it."""
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    behind = lines[node.end_lineno - 1][node.end_col_offset :].strip().lstrip("#: ")
    if behind:
        return behind
    above: list[str] = []
    for line in reversed(lines[: node.lineno - 1]):
        if not line.strip().startswith("#:"):
            break
        above.insert(0, line.strip().lstrip("#: "))
    return " ".join(above)


def kind(node: ast.AnnAssign | ast.Assign) -> str:
    """Return what an assignment without a comment says: its type, or a word of an enumeration."""
    shown = node.annotation if isinstance(node, ast.AnnAssign) else node.value
    return f"`{ast.unparse(shown)}`"


def meaning(value: ast.expr | None) -> str:
    """Return the description that a field of options carries."""
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "Field":
        for word in value.keywords:
            if word.arg == "description":
                return sentence(str(ast.literal_eval(word.value)))
    return ""
