"""A folder's name inside a script is run as a part of it: refused when config.yaml is read."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from dittohead.config.loader import load
from dittohead.model.errors import ConfigError
from dittohead.toolkit.scripts import scripts

#: Lines whose script is SCRIPT.
WITH = [
    "sh -c SCRIPT",
    "/bin/sh -ec SCRIPT {a}",
    "bash -o pipefail -c SCRIPT",
    "bash -eo pipefail -c SCRIPT",
    "bash --norc -c -e SCRIPT x",
    "sudo -u bob env A=1 nice -n 3 timeout 5 bash -lc SCRIPT y",
    "env -i PATH=x dash -c SCRIPT",
    "env -S SCRIPT",
    "su bob -c SCRIPT",
    "flock /lock -c SCRIPT",
    "xargs -0 ksh -c SCRIPT",
    "busybox sh -c SCRIPT",
    "/usr/bin/python3.11 -Ic SCRIPT",
    "python3 -W ignore -c SCRIPT -c {a}",
    "perl -ne SCRIPT file",
    "perl -I lib -pi.bak -E SCRIPT",
    "ruby -r json -e SCRIPT",
    "node -r module --eval SCRIPT",
    "nodejs -p SCRIPT",
    "php -r SCRIPT",
]

#: Lines in which nothing is a script.
WITHOUT = [
    "sh run.sh -c {a}",
    "python3 -m module -c {a}",
    "python3 tool.py -c {a}",
    "perl -i.e file",
    "tar -c {a}",
    "git -c {a}",
    "logger -e {a}",
]


@pytest.mark.parametrize("line", WITH)
def test_the_script_is_found_behind_options_and_wrappers(line: str) -> None:
    """By the interpreter's own rules for options."""
    argv = shlex.split(line)
    assert [argv[found.index] for found in scripts(argv)] == ["SCRIPT"]


@pytest.mark.parametrize("line", WITHOUT)
def test_arguments_of_other_programs_are_no_scripts(line: str) -> None:
    """A script in a file has options of its own."""
    assert not list(scripts(shlex.split(line)))


@pytest.mark.parametrize("argument", ["-cprint({a})", "--eval={a}"])
def test_a_script_in_its_options_own_argument_is_found(argument: str) -> None:
    """Python's -cPROGRAM and node's --eval=PROGRAM."""
    argv = ["python3" if argument.startswith("-c") else "node", argument]
    assert [found.index for found in scripts(argv)] == [1]


CONFIG = """\
root: .
pipelines:
  all:
    match: "(?P<a>.*)"
    steps:
      - command:
          argv:
            - /bin/sh
            - -c
            - {script}
            - sh
            - "{{a}}"
"""


@pytest.mark.parametrize("probe", [True, False])
def test_a_placeholder_in_a_script_is_refused_with_its_place_and_the_right_way(
    tmp_path: Path, probe: bool
) -> None:
    """By `dittohead check` and whenever the file is read; as an argument it is right."""
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.format(script="'echo hello {a} in {name}; echo ${{x}}'"))
    with pytest.raises(ConfigError) as caught:
        load(path, probe=probe)
    said = [str(problem) for problem in caught.value.problems]
    assert said == [
        f"{path}:10:15: {{{name}}} stands inside a script of /bin/sh, which would run what it holds. "
        f'Write "$1" there, and add to argv, behind the script: "sh", "{{{name}}}"'
        for name in ("a", "name")
    ]
    path.write_text(CONFIG.format(script="'echo hello \"$1\"; echo ${{x}}'"))
    load(path, probe=probe)
