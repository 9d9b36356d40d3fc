"""What a forge and an editor read: the workflow, the forms, the hooks and the style say what the project does."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.pages import TOP
from tests.support.wheel import tracked

FORGE = TOP / ".github"


def document(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def recipe(target: str) -> list[str]:
    """Return what `make TARGET` runs, line by line; the tests themselves may run under a make."""
    env = {key: value for key, value in os.environ.items() if key not in ("MAKELEVEL", "MAKEFLAGS", "MFLAGS")}
    said = subprocess.run(
        ["make", "-n", target], cwd=TOP, env=env, capture_output=True, text=True, check=True
    )
    return said.stdout.replace("'", "").splitlines()


def test_the_workflow_types_the_readmes_command_on_each_supported_debian() -> None:
    """In a bare container, with the packages that `make prove-debian` gives its bare systems, and no other."""
    (job,) = document(FORGE / "workflows" / "test.yml")["jobs"].values()
    assert job["strategy"]["matrix"] == {"debian": ["12", "13"]}
    assert job["container"]["image"] == "debian:${{ matrix.debian }}"
    typed = [step["run"] for step in job["steps"] if "run" in step]
    assert "make test" in typed
    given = re.search(r"--include=([a-z,-]+)", (TOP / "tools" / "prove-debian").read_text())
    assert given is not None
    assert set(typed[0].split("--no-install-recommends ")[1].split()) == set(given[1].split(","))
    assert typed[-1].split()[-1] in (TOP / "tools" / "setup").read_text()


def test_the_readme_names_the_same_releases() -> None:
    for page in ("README.md", "SECURITY.md"):
        assert "Debian 12" in (TOP / page).read_text(), page


def test_the_hooks_are_what_make_check_runs() -> None:
    """The checkout's own programs, with the same arguments: a hook never says anything else."""
    (repository,) = document(TOP / ".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    assert {hook["language"] for hook in repository["hooks"]} == {"system"}
    assert [hook["entry"] for hook in repository["hooks"]] == recipe("check")
    assert not any(hook["pass_filenames"] for hook in repository["hooks"])


@pytest.mark.skipif(not (TOP / ".venv" / "bin" / "ruff").exists(), reason="the packages lie elsewhere")
def test_a_hook_runs_as_it_stands() -> None:
    """Without pre-commit, which does no more than this."""
    (repository,) = document(TOP / ".pre-commit-config.yaml")["repos"]
    quick = next(hook for hook in repository["hooks"] if hook["id"] == "ruff-format")
    said = subprocess.run(quick["entry"].split(), cwd=TOP, capture_output=True, text=True, check=False)
    assert said.returncode in (0, 1), said.stderr


@pytest.mark.parametrize("form", sorted((FORGE / "ISSUE_TEMPLATE").glob("[!c]*.yml")), ids=lambda p: p.name)
def test_a_form_asks_questions(form: Path) -> None:
    """Source: the forge's syntax for issue forms: name, description and body; each field an id and a label."""
    made = document(form)
    assert made["name"]
    assert made["description"]
    asked = [field for field in made["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in asked}) == len(asked) > 1
    assert all(field["attributes"]["label"] for field in asked)
    for field in asked:
        options = field["attributes"].get("options", [])
        assert all(isinstance(option, str) for option in options), "YAML takes a bare yes for true"


def test_the_forms_and_papers_lead_to_what_is_there() -> None:
    """Files they name in running text."""
    for path in [*FORGE.rglob("*.yml"), *FORGE.rglob("*.md")]:
        for name in re.findall(r"\b(?:docs/|tools/)?[\w-]+\.md\b|\btools/\w+", path.read_text()):
            assert (TOP / name).exists(), (path.name, name)


def test_files_are_as_the_editor_is_told() -> None:
    """UTF-8, ends of lines, no blanks before them, tabs in Makefiles alone."""
    rules = (TOP / ".editorconfig").read_text()
    for rule in ("insert_final_newline = true", "trim_trailing_whitespace = true", "end_of_line = lf"):
        assert rule in rules
    wrong = []
    for name in tracked():
        data = (TOP / name).read_bytes()
        if b"\0" in data[:8000]:
            continue
        text = data.decode()
        lines = text.split("\n")
        if "\r" in text or (text and lines[-1]) or any(line != line.rstrip() for line in lines):
            wrong.append(name)
        if name != "Makefile" and any(line.startswith("\t") for line in lines):
            wrong.append(name)
    assert wrong == []


def test_a_tool_that_reads_the_style_takes_it() -> None:
    """Sections and keys as the format has them; source: editorconfig.org, "File Format Details"."""
    known = {
        "charset",
        "end_of_line",
        "insert_final_newline",
        "trim_trailing_whitespace",
        "indent_style",
        "indent_size",
        "max_line_length",
    }
    for line in (TOP / ".editorconfig").read_text().splitlines():
        if line and line[0] not in "#[" and line != "root = true":
            assert line.split(" = ")[0] in known, line
