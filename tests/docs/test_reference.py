"""What makes the reference: nested settings, comments behind names, levels of log events, an OpenAPI document."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from types import ModuleType
from typing import Any

import pytest
from pydantic import BaseModel, Field

import dittohead
from dittohead.model import events, records, states
from dittohead.system import log
from tests.docs.pages import DOCS, TOP


@pytest.fixture(scope="module")
def tool() -> Iterator[ModuleType]:
    """tools/reference as a module."""
    sys.path.insert(0, str(TOP / "tools"))
    loader = SourceFileLoader("reference_tool", str(TOP / "tools" / "reference"))
    spec = spec_from_loader("reference_tool", loader)
    assert spec is not None
    made = module_from_spec(spec)
    loader.exec_module(made)
    yield made
    sys.path.remove(str(TOP / "tools"))


class Inner(BaseModel):
    """What stands inside."""

    port: int = Field(25, alias="p", description="A | B.")


class Outer(BaseModel):
    """What stands outside."""

    one: Inner | None = None
    many: list[Inner] = Field(default_factory=list)
    named: dict[str, Inner] = Field(default_factory=dict)


def test_settings_are_found_however_they_are_nested(tool: ModuleType) -> None:
    """With the keys that are written, not the names in the code."""
    sections = list(tool.below(Outer))
    assert [section.title for section in sections] == ["one", "many: one entry", "named: NAME"]
    assert tool.table(sections[0])[2] == "| `p` | `25` | A \\| B. |"


def test_every_state_event_and_log_name_is_on_its_page() -> None:
    """And the levels of log events are those of the calls."""
    page, logged = ((DOCS / "reference" / f"{name}.md").read_text() for name in ("states", "log"))
    for kind in (
        states.JobState,
        states.StepState,
        states.ItemState,
        states.DropState,
        events.EventType,
        records.Use,
    ):
        assert all(f"- `{member.value}`" in page for member in kind)
    rows = {
        line.split("`")[1]: line.split("|")[2].strip()
        for line in logged.splitlines()
        if line.startswith("| `")
    }
    names = {value for name, value in vars(log).items() if name.isupper() and isinstance(value, str)}
    assert set(rows) == names
    assert rows["config.refused"] == "error"
    assert [name for name, levels in rows.items() if not levels] == []


def test_an_openapi_document_becomes_a_page(tool: ModuleType) -> None:
    """References followed, parameters of the path and of the operation, every answer."""
    document: dict[str, Any] = {
        "components": {
            "schemas": {"Why": {"properties": {"reason": {"type": "string", "description": "Why."}}}},
            "parameters": {"job": {"name": "job", "in": "path", "description": "Its id"}},
        },
        "paths": {
            "/api/v1/jobs/{job}": {
                "parameters": [{"$ref": "#/components/parameters/job"}],
                "post": {
                    "requestBody": {
                        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Why"}}}
                    },
                },
                "get": {"summary": "One job.", "responses": {"200": {"description": "The\njob"}, "404": {}}},
            }
        },
    }
    lines = tool.described(document)
    assert "## GET /api/v1/jobs/{job}" in lines
    assert "| `job` | path | Its id |" in lines
    assert "| 200 | The job |" in lines
    assert "| `reason` | body | Why. |" in lines


def test_what_the_daemon_serves_is_on_the_page(tool: ModuleType) -> None:
    """From the routes, as long as there is no document."""
    page = (DOCS / "reference" / "http.md").read_text()
    for path in ("/healthz", "/metrics", "/api/v1/jobs/{job}"):
        assert path in page


def test_every_public_name_is_on_the_page_of_the_contract(tool: ModuleType) -> None:
    """In one place, with each of its members; a worker or source is written against nothing else."""
    named = [name for part in tool.tree.PARTS.values() for name in part]
    assert sorted([*named, "__version__"]) == sorted(dittohead.__all__)
    page = (DOCS / "reference" / "contract.md").read_text()
    for name in named:
        assert f"\n### {name}\n" in page
    for line in page.splitlines():
        assert not re.fullmatch(r"\| `[^`]*` \| *\|", line), line


def test_members_are_shown_as_they_are_called_and_said(tool: ModuleType) -> None:
    """Comments behind and above, arguments without types, what waits and what yields."""
    rows = dict(tool.tree.members(dittohead.Worker))
    assert rows["per_file"] == "options that are templates for each file"  # behind it
    assert rows["takes"].startswith("options that name earlier steps")  # above it
    assert "await run(ctx, options)" in rows
    assert "async for ... in doctor(options, secret)" in rows
    assert "room(options, written)" in rows
    assert tool.tree.shape(dittohead.durable_file) == "(path, mode=0o640)"


def test_the_tree_names_every_module_with_its_own_sentence(tool: ModuleType) -> None:
    """As the files lie now; revisions of the store are a series."""
    page = (DOCS / "architecture.md").read_text()
    modules = [path for _, found in tool.tree.rooms() for path in found]
    assert len(modules) > 200
    for path in modules:
        assert tool.tree.said(path), path
        assert f"| `{path.name}` | {tool.escaped(tool.tree.said(path))} |" in page


def test_a_page_that_lost_its_comments_is_told(tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the table would silently stay as it was."""
    monkeypatch.setattr(tool, "PARTS", {"why.md: tree": list})
    with pytest.raises(ValueError, match=r"docs/why\.md has no comments"):
        list(tool.parts())
