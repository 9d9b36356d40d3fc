"""The words are true: the reference is what the code says, and the README names every command; see tests/docs too."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

from dittohead.cli import MODULES
from dittohead.config.loader import load
from tests.support.wheel import tracked

TOP = Path(__file__).parent.parent


def test_the_reference_is_what_the_code_says() -> None:
    """Settings, workers' options, commands and log events; made again by tools/reference."""
    said = subprocess.run(
        [sys.executable, TOP / "tools" / "reference", "--check"], capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr


def test_the_readmes_configuration_loads(tmp_path: Path) -> None:
    """As a newcomer would copy it."""
    (block,) = re.findall(r"```yaml\n(.*?)```", (TOP / "README.md").read_text(), re.DOTALL)
    (tmp_path / "config.yaml").write_text(block)
    assert [step.name for step in load(tmp_path / "config.yaml").pipelines[0].steps] == [
        "convert",
        "originals",
        "pyramids",
    ]


def test_the_readme_is_read_in_a_minute() -> None:
    """What it is comes before anything to type; the example has ten lines; both pictures are there."""
    text = (TOP / "README.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert len(block.splitlines()) <= 10
    before = text[: text.index("\n## ")]
    assert len(re.sub(r"\]\([^)]*\)", "", before).split()) < 280
    assert {"front-1280.png", "terminal.png"} <= set(re.findall(r"screenshots/([\w.-]+)", before))


def test_what_the_readme_says_it_can_replace_is_carried_out() -> None:
    """Each row leads to the page of a whole set-up, which a test runs as it stands; and says what there is not."""
    part = (TOP / "README.md").read_text().split("\n## What it can replace\n")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("| ")][2:]
    assert len(rows) == 5
    tests = "\n".join(path.read_text() for path in (TOP / "tests").rglob("test_*.py"))
    for _, there_is, there_is_not in rows:
        page = re.findall(r"\(docs/([\w-]+\.md)\)", there_is)[0]
        assert f'"{page}"' in tests, page
        assert there_is_not


def test_every_command_is_found_in_its_module() -> None:
    """And none is forgotten in a module; what the list of commands says of each is its own first sentence."""
    for module in {of.module for of in MODULES.values()}:
        commands = importlib.import_module(f"dittohead.cli.{module}").COMMANDS
        said = {command.name: command.get_short_help_str(1000) for command in commands}
        assert said == {name: of.help for name, of in MODULES.items() if of.module == module}


def test_every_command_the_readme_names_exists() -> None:
    """`dittohead WORD` wherever it stands as code, and no command is left unsaid."""
    text = (TOP / "README.md").read_text()
    code = re.findall(r"`[^`\n]+`|^    \.venv.*$", text, re.MULTILINE)
    named = set(re.findall(r"dittohead (?:--config \S+ )?([a-z]+)\b", " ".join(code)))
    assert named - set(MODULES) == set()
    assert set(MODULES) - named <= {"schema"}


def test_no_committed_file_names_a_machine_or_a_registry() -> None:
    """The project names itself alone."""
    hosts = re.compile("pypi" + r"\.org|files\.python" + "hosted|registry\\." + "npmjs|deb\\." + "debian")
    assert [name for name in tracked() if hosts.search((TOP / name).read_text(errors="replace"))] == []
