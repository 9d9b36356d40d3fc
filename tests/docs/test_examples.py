"""Every example of the pages: configurations load, commands are ones there are, Python runs."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from dittohead import Source, Worker
from dittohead.cli import main
from dittohead.config import registry
from dittohead.config.loader import load
from dittohead.config.settings import Settings
from dittohead.folders import sidecar
from tests.docs.pages import PAPERS, TOP, Block, blocks, pages, prose

PAGES = [*PAPERS, *pages()]
BLOCKS = [block for page in PAGES for block in blocks(page)]

#: Blocks that are not examples of ours, by how they begin, and why.
NOT_OURS = {
    "# prometheus.yml": "Prometheus' own configuration",
    "purpose: ": "a side-car; read as one below",
}
#: Commands with words in capitals that stand for something else.
STANDING_FOR = {"COMMAND": "status"}


def yaml_blocks() -> Iterator[Block]:
    for block in BLOCKS:
        if block.language == "yaml" and not block.text.startswith(tuple(NOT_OURS)):
            yield block


def whole(text: str) -> str:
    """Return a configuration around an example that is a part of one."""
    found = yaml.safe_load(text)
    if isinstance(found, list):
        found = {"steps": found}
    if "steps" in found:
        named = sorted(set(re.findall(r"\{(object|study|collection)\}", text)))
        match = "-".join(f"(?P<{group}>[A-Za-z0-9]+)" for group in named) or ".*"
        found = {"pipelines": {"example": {"match": match, **found}}}
        return yaml.safe_dump({"root": ".", **found}, sort_keys=False)
    assert set(found) <= set(Settings.model_fields), set(found) - set(Settings.model_fields)
    minimal = {"root": ".", "pipelines": {"all": {"match": ".*", "steps": [{"checksum": {}}]}}}
    missing = {key: value for key, value in minimal.items() if key not in found}
    # As it stands: PyYAML would write `on:` as true, which it is in YAML 1.1.
    return yaml.safe_dump(missing, sort_keys=False) + text


@pytest.mark.parametrize("block", list(yaml_blocks()), ids=lambda block: block.place)
def test_every_configuration_loads(block: Block, tmp_path: Path, examples: None) -> None:
    """Whole ones as they stand, parts in the smallest that holds them."""
    text = block.text
    if not re.search(r"^root:", text, re.MULTILINE) or not re.search(r"^pipelines:", text, re.MULTILINE):
        text = whole(text)
    (tmp_path / "config.yaml").write_text(text)
    assert load(tmp_path / "config.yaml", probe=False).pipelines


def test_the_side_car_is_one(tmp_path: Path) -> None:
    """With the other way to write it, which the comment holds."""
    (block,) = (block for block in BLOCKS if block.text.startswith("purpose: "))
    (tmp_path / sidecar.NAME).write_text(block.text)
    assert sidecar.purposes(tmp_path) == {"access"}
    (tmp_path / sidecar.NAME).write_text("purpose: " + block.text.partition("# or ")[2])
    assert sidecar.purposes(tmp_path) == {"preservation", "access"}


def test_every_exception_is_one() -> None:
    """One that is not needed any more is taken off the list."""
    for begin in NOT_OURS:
        assert any(block.text.startswith(begin) for block in BLOCKS), begin


@pytest.mark.parametrize(
    "path", [TOP / "config.yaml", TOP / "dittohead" / "cli" / "init.yaml"], ids=lambda p: p.name
)
def test_what_is_commented_out_in_a_shipped_configuration_loads_too(path: Path, tmp_path: Path) -> None:
    """As it is after somebody took the `#` away: whole mappings at the top level."""
    text = path.read_text().replace("@ROOT@", ".").replace("@DELIVER@", "/d")
    for part in re.findall(r"^# (?:sources|notify):\n(?:#.*\n)+", text, re.MULTILINE):
        opened = re.sub(r"^# ?", "", part, flags=re.MULTILINE)
        (tmp_path / "config.yaml").write_text(text.replace(part, opened))
        load(tmp_path / "config.yaml", probe=False)


def typed() -> Iterator[tuple[str, str]]:
    """Yield (place, command line) for each `dittohead ...` in a block or in running text."""
    for block in BLOCKS:
        if block.language in ("", "sh", "console"):
            for line in re.sub(r"\\\n\s*", " ", block.text).splitlines():
                if re.search(r"(^|[\s/])dittohead(\s|$)", line):
                    yield block.place, line.removeprefix("$ ")
    for page in PAGES:
        for code in re.findall(r"`((?:sudo -u \w+ )?dittohead [^`]+)`", prose(page)):
            yield str(page.relative_to(TOP)), code.replace("\\|", "|")


def invocations(line: str) -> Iterator[list[str]]:
    """Yield the arguments of each dittohead in a command line."""
    words = shlex.split(line, comments=True)
    begins = [0] + [n + 1 for n, word in enumerate(words) if word in ("&&", "||", "|", ";")]
    for begin in begins:
        rest = words[begin:]
        end = next((n for n, word in enumerate(rest) if word in ("&&", "||", "|", ";")), len(rest))
        command = rest[:end]
        if command[:2] == ["sudo", "-u"]:
            command = command[3:]
        if command and command[0].rpartition("/")[2] == "dittohead":
            yield command[1:]


def resolve(arguments: list[str], *, complete: bool = True) -> None:
    """See that there is such a command with such options; nothing is run. Raises: click.UsageError.

    Args:
        complete: what it must be given is, too; running text names commands alone.
    """
    command: click.Command = main
    context = click.Context(main, info_name="dittohead")
    while True:
        values, rest, _ = command.make_parser(context).parse_args(list(arguments))
        for parameter in command.get_params(context):
            value = values.get(parameter.name or "")
            for one in value if isinstance(value, (tuple, list)) else [value]:
                if isinstance(parameter.type, click.Choice) and isinstance(one, str):
                    parameter.type.convert(one, parameter, context)
            missing = value is None or value == () or not isinstance(value, (str, bool, tuple, list, int))
            if complete and isinstance(parameter, click.Argument) and parameter.required and missing:
                raise click.MissingParameter(ctx=context, param=parameter)
        if not isinstance(command, click.Group) or not rest:
            return
        name, command_below, arguments = command.resolve_command(
            context, [STANDING_FOR.get(rest[0], rest[0]), *rest[1:]]
        )
        assert command_below is not None
        command, context = command_below, click.Context(command_below, info_name=name, parent=context)


def test_every_command_that_is_shown_is_one_there_is() -> None:
    """Names and options, wherever they stand; all that are wrong at once."""
    wrong, count = [], 0
    for place, line in typed():
        for arguments in invocations(line):
            count += 1
            try:
                resolve(arguments, complete=":" in place)
            except click.UsageError as error:
                wrong.append(f"{place}: {line}: {error.format_message()}")
    assert wrong == []
    assert count > 100


@pytest.mark.parametrize(
    "line",
    [
        "dittohead stauts",
        "dittohead list --failed",
        "dittohead list --state finished",
        "dittohead thaw",
        "dittohead source synk x",
    ],
)
def test_one_that_is_none_is_found(line: str) -> None:
    """The check can fail."""
    ((arguments),) = invocations(line)
    with pytest.raises(click.UsageError):
        resolve(arguments)


@pytest.mark.parametrize(
    "block", [b for b in BLOCKS if b.language in ("python", "json")], ids=lambda block: block.place
)
def test_python_and_json_are_whole(block: Block) -> None:
    """Python runs as a module would be imported; a part of JSON is one."""
    if block.language == "json":
        json.loads(
            re.sub(r"\.\.\.(?=\W*$)", "", "{" + block.text.strip().rstrip(",") + "}")
            if block.text[0] == '"'
            else block.text
        )
        return
    made: dict[str, Any] = {"__name__": "example"}
    exec(compile(block.text, block.place, "exec", dont_inherit=True), made)
    offered = [one for one in made.values() if isinstance(one, type) and issubclass(one, (Worker, Source))]
    assert any(one.__module__ == "example" and one().name for one in offered) or "revision" in made


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "toml"], ids=lambda block: block.place)
def test_a_package_names_what_it_offers(block: Block) -> None:
    """In a group that dittohead looks into, and by a class that the same page shows."""
    ((group, points),) = tomllib.loads(block.text)["project"]["entry-points"].items()
    assert group in (registry.GROUP, registry.SOURCES)
    (module,) = (other.text for other in blocks(block.page) if other.language == "python")
    for name, where in points.items():
        assert f"class {where.partition(':')[2]}(" in module
        assert f'name = "{name}"' in module


def test_every_block_is_of_a_kind_that_is_looked_at() -> None:
    """A block in a language that no test knows would go unread."""
    assert {block.language for block in BLOCKS} <= {
        "",
        "sh",
        "console",
        "yaml",
        "python",
        "json",
        "text",
        "jinja",
        "bat",
        "nginx",
        "ini",
        "sftp",
        "toml",
    }


def test_every_set_up_is_carried_out() -> None:
    """Each page of a whole set-up, and the tutorial, is named by the test that runs it."""
    tests = "\n".join(path.read_text() for path in (TOP / "tests").rglob("test_*.py"))
    for page in (
        "tutorial",
        "drop-folder",
        "bucket-to-bucket",
        "bag-to-archive",
        "records",
        "grin",
        "preservation-service",
    ):
        assert f'"{page}.md"' in tests, page
