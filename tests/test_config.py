"""config.yaml: every mistake is named with its line and key, and what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from dittohead.config.json_schema import json_schema
from dittohead.config.loader import load
from dittohead.config.positions import read
from dittohead.config.registry import default
from dittohead.model.errors import ConfigError


def problems(tmp_path: Path, text: str) -> list[str]:
    """Return the errors of a configuration, without the file's directory."""
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    return [str(problem).replace(str(tmp_path) + "/", "") for problem in caught.value.problems]


GOOD = """\
root: .
pipelines:
  scans:
    match: "(?P<study>[a-z0-9]+)-.*"
    steps:
      - convert: {quality: 85}
      - rsync: {from: convert, to: "/tmp/{study}/{name}/"}
"""


def test_a_good_configuration_loads(tmp_path: Path) -> None:
    """With defaults filled in, and the root relative to the file."""
    (tmp_path / "config.yaml").write_text(GOOD)
    config = load(tmp_path / "config.yaml")
    assert config.root == tmp_path
    assert [step.name for step in config.pipelines[0].steps] == ["convert", "rsync"]
    assert config.pipelines[0].steps[1].source == "convert"
    assert config.limits["jobs"] == 8
    found = config.pipeline_for("lab1-x")
    assert found is not None
    assert found[1] == {"study": "lab1"}
    assert config.pipeline_for("lab1-x\n") is None
    assert config.pipeline_for("Lab1") is None


def test_a_pattern_that_takes_too_long_is_doubted_and_stops_no_start(tmp_path: Path) -> None:
    """`check` refuses it with its place; a start bears with it, for it harms single folders alone."""
    path = tmp_path / "config.yaml"
    path.write_text(GOOD.replace('"(?P<study>[a-z0-9]+)-.*"', '"(?P<study>(a|aa)+)-.*"'))
    (doubt,) = load(path).doubts
    assert str(doubt).startswith(f'{path}:4:12: "match" takes too long over some names, such as "aaaa')
    assert "without repeats inside repeats" in str(doubt)
    assert load(path, probe=False).doubts == ()


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (
            "root: .",
            "root: .\nstore: postgresql://u@h/d?sslmode=require&password=S3CRET",
            ('config.yaml:2:8: "store": a password does not belong here; put it in a credential file and name that with '
            "store_credential"),
        ),
        ("quality: 85", "qualty: 85", 'config.yaml:6:19: unknown key "qualty". Did you mean "quality"?'),
        ("quality: 85", "quality: 850", 'config.yaml:6:28: "quality": input should be less than or equal to 100'),
        ("- convert", "- covert", 'config.yaml:6:9: there is no worker "covert". Did you mean "convert"?'),
        ("{study}", "{stuy}", 'config.yaml:7:36: there is no placeholder {stuy}. Did you mean "study"?'),
        ("{name}/", "{name/", 'config.yaml:7:36: a single "{"; write "{{" for the character itself'),
        ("from: convert", "from: conver", 'config.yaml:7:23: there is no earlier step "conver". Did you mean "convert"?'),
        ("from: convert", "from: rsync", 'config.yaml:7:23: there is no earlier step "rsync". Only a step that comes before can be named'),
        ("[a-z0-9]+)", "[a-z0-9+)", 'config.yaml:4:12: "match": this is not a regular expression: unterminated character set at position 10'),
        ("<study>", "<name>", 'config.yaml:4:12: the group name "name" is taken: {name} has a meaning of its own. Call the group something else'),
        ("root: .\n", "", 'config.yaml:1:1: the key "root" is missing.'),
        ("root: .\n", "root: .\nroot: .\n", 'config.yaml:2:1: the key "root" stands here a second time. The first is on line 1; remove one of them'),
        ("root: .\n", "root: .\nlimits: {convrt: 2}\n", 'config.yaml:2:10: there is no kind of step "convrt". Did you mean "convert"?'),
        ("root: .\n", "root: .\nstore: mysql://x\n", 'config.yaml:2:8: "store": "sqlite" or "postgresql://user@host/database" is required'),
        ("root: .\n", "root: .\nstore: postgresql://u:geheim@h/d\n", "a password does not belong here"),
        ("root: .\n", "root: .\nwatch: {interval: soon}\n", "'soon' is not a duration; write"),
        ("root: .\n", "root: .\nnotify: [{on: [failed]}]\n", "exactly one of url, url_credential, smtp, webhook and ping is required"),
        ("root: .\n", "root: .\nnotify: [{url: 'json://x', on: [fialed]}]\n", 'config.yaml:2:33: "on": write one of done, failed,'),
        ("root: .\n", "root: .\nnotify: [{url: 'json://x', on: [fialed]}]\n", 'Did you mean "failed"?'),
        ("root: .\n", "root: .\nlimits: {jobs: some}\n", 'config.yaml:2:16: "jobs": a whole number is required'),
        ("root: .\n", "root: .\nlimits: 3\n", 'config.yaml:2:9: "limits": a mapping, such as {key: value}, is required'),
        ("root: .\n", "root: .\nhttp: 8140\n", 'config.yaml:2:7: "http": a mapping, such as {key: value}, is required'),
        ("root: .\n", "root: .\nhttp: {listen: '127.0.0.1:99999'}\n", 'config.yaml:2:16: "listen": a port is at most 65535'),
        ("root: .\n", "root: .\nhttp: {names: a.org}\n", 'config.yaml:2:15: "names": a list, such as [a, b], is required'),
        ("root: .\n", "root: 7\n", 'config.yaml:1:7: "root": '),
        ("quality: 85", "quality: fine", 'config.yaml:6:28: "quality": a whole number is required'),
        ("root: .\n", "root: .\nnotify: [{url: 'json://[S3CRET'}]\n", 'config.yaml:2:16: "url": this is not a URL'),
        ("root: .\n", "root: [\n", "this is not valid YAML"),
        ("- convert: {quality: 85}", "- {convert: {}, rsync: {}}", "a step is one key, the worker's name, with its options; here stand convert, rsync"),
        ("rsync: {from: convert,", "rsync: {from: convert, name: convert,", 'an earlier step is called "convert" too'),
        ('"/tmp/{study}/{name}/"', '"relative/"', "an absolute path, or host:/absolute/path, is required"),
        ("convert: {quality: 85}", "command: {argv: [no-such-program-here]}", 'the program "no-such-program-here" is not there'),
    ],
)  # fmt: skip
def test_each_mistake_is_named_with_its_place(tmp_path: Path, before: str, after: str, said: str) -> None:
    """File, line, column, what is wrong and what to write."""
    assert before in GOOD
    found = problems(tmp_path, GOOD.replace(before, after, 1))
    assert said in found[0], found


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    """Of whatever kind they are, and whoever finds them: keys, values, patterns, steps, what goes together."""
    found = problems(
        tmp_path,
        """\
root: .
http: {listen: "0.0.0.0:80"}
limits: {jobs: none}
pipelines:
  scans:
    match: "[a-z"
    steps: [rsync: {to: "/tmp/{stdy}/"}]
  other:
    match: "(?P<study>[a-z]+)"
    steps:
      - convert: {format: tif}
      - rsync: {from: x, to: "/tmp/{stdy}/"}
notify:
  - {smtp: {host: "127.0.0.1:8252", sender: a@b.org, to: [nonsense]}}
sources: {a: {nothing: {}}}
surplus: 1
""",
    )
    assert [problem.partition(": ")[0] for problem in found] == [
        f"config.yaml:{place}"
        for place in (
            "2:8", "3:16", "6:12", "11:27", "12:23", "12:30", "14:19", "14:58", "15:15", "16:1"
        )
    ]  # fmt: skip


TOLD = GOOD.replace("scans:\n", "scans:\n    description: Scans\n    example: lab1-a\n")


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("lab1-a", "lab1", 'config.yaml:5:14: the example "lab1" does not fit match. Correct the example, or match'),
        ("lab1-a", ".lab1-a", 'config.yaml:5:14: ".lab1-a" is not a name for a folder: it begins with a dot'),
        ("lab1-a", "lab1-a/b", 'config.yaml:5:14: "lab1-a/b" is not a name for a folder: it holds a slash'),
        ("  scans:", "  all: {match: '.*-a', steps: [{checksum: {}}]}\n  scans:", 'config.yaml:6:14: the example "lab1-a" goes through all, which is tried before'),
        ("example:", "exampel:", 'config.yaml:5:5: unknown key "exampel". Did you mean "example"?'),
    ],
)  # fmt: skip
def test_an_example_goes_through_its_own_pipeline(tmp_path: Path, before: str, after: str, said: str) -> None:
    """People are shown it instead of the pattern: a wrong one sends their folders to failed/."""
    assert any(problem.startswith(said) for problem in problems(tmp_path, TOLD.replace(before, after)))


@pytest.mark.parametrize(
    ("http", "said"),
    [
        ('public_url: "https://ingest.example.org", names: [ingest.example.org]', ""),
        ('public_url: "https://Ingest.example.org:8443/", names: [ingest.example.org]', ""),
        ('public_url: "http://127.0.0.1:8140"', ""),
        ('public_url: "http://[::1]:8140"', ""),
        ('public_url: "http://localhost"', ""),
        ('public_url: "https://ingest.example.org"', 'config.yaml:2:8: the page does not answer under the name ingest.example.org. Add it: names: [ingest.example.org]'),
        ('public_url: "https://b.example.org", names: [a.example.org]', "Add it: names: [a.example.org, b.example.org]"),
        *((f'public_url: "{wrong}"', 'config.yaml:2:20: "public_url": http:// or https:// and a host is required, without a path, such as https://ingest.example.org')
          for wrong in ("ingest.example.org", "ftp://a", "https://a/page", "https://", "https://u:p@a", "https://a:99999", "https://a?x", "javascript:alert(1)")),
    ],
)  # fmt: skip
def test_the_pages_address_is_one_that_leads_there(tmp_path: Path, http: str, said: str) -> None:
    """It stands in mails: nonsense, or a name the page refuses, would lead people nowhere."""
    text = GOOD.replace("root: .\n", f"root: .\nhttp: {{{http}}}\n")
    if said:
        assert any(said in problem for problem in problems(tmp_path, text))
        return
    (tmp_path / "config.yaml").write_text(text)
    settings = load(tmp_path / "config.yaml").settings.http
    assert settings is not None
    assert not (settings.public_url or "").endswith("/")


def test_a_refused_name_is_told_by_examples(tmp_path: Path) -> None:
    """By the pattern only where there is no example."""
    more = "  other:\n    match: 'x[0-9]+'\n    steps: [{checksum: {}}]\n"
    (tmp_path / "config.yaml").write_text(TOLD + more)
    refused = load(tmp_path / "config.yaml").no_pipeline("X", "Rename it", "Then try again")
    assert str(refused) == (
        "X: no pipeline's match fits the folder's name. "
        "Rename it to fit one of: scans (Scans), such as lab1-a; other (match: x[0-9]+). Then try again"
    )


def test_all_mistakes_come_at_once(tmp_path: Path) -> None:
    """Not one at each try."""
    text = GOOD.replace("quality", "qualty").replace("{study}", "{stuy}").replace("to:", "too:")
    assert len(problems(tmp_path, text)) >= 3


def test_a_password_in_the_store_is_not_shown(tmp_path: Path) -> None:
    """Not even in the error about it."""
    found = problems(tmp_path, GOOD.replace("root: .\n", "root: .\nstore: postgresql://u:geheim@h/d\n"))
    assert "geheim" not in "".join(found)


def test_the_shipped_configurations_load(tmp_path: Path) -> None:
    """config.yaml of the checkout, and what `dittohead init` writes."""
    top = Path(__file__).parent.parent / "config.yaml"
    assert load(top).pipelines
    text = (top.parent / "dittohead" / "cli" / "init.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text.replace("@ROOT@", ".").replace("@DELIVER@", "/x"))
    assert load(tmp_path / "config.yaml").pipelines


def test_the_schema_accepts_what_the_loader_accepts(tmp_path: Path) -> None:
    """Editors use it; it knows every worker's options and refuses unknown keys."""
    import jsonschema

    schema = json_schema(default())
    jsonschema.Draft202012Validator.check_schema(schema)
    (tmp_path / "c.yaml").write_text(GOOD)
    jsonschema.validate(read(tmp_path / "c.yaml").data, schema)
    (tmp_path / "c.yaml").write_text(GOOD.replace("quality", "qualty"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(read(tmp_path / "c.yaml").data, schema)


def test_errors_of_all_kinds_are_told_at_once(tmp_path: Path) -> None:
    """Of types and keys, of steps, references, places and patterns: repair one shows no others."""
    text = """\
store: 5
rooot: .
limits: {jobs: 0, covert: 2}
watch: {intervall: 5s}
http: {listen: "0.0.0.0:80", tokns: people}
notify:
  - smtp: {host: "h:25", sender: a@b.org, to: [c@b.org]}
    on: [faild]
pipelines:
  scans:
    match: "(?P<study>[a-z0-9+)-.*"
    keep_wrk: 1d
    steps:
      - convert: {qualty: 85}
      - rsync: {from: conver, to: "/tmp/{study}/{nam}/"}
  other:
    match: "(?P<study>(a|aa)+)x"
    example: nothing
    steps: [rsync: {to: "tmp/{stuy}"}]
  third:
    steps: [covert: {}]
sources:
  masters: {s4: {}}
"""
    said = "\n".join(problems(tmp_path, text))
    for place in (
        'config.yaml:1:1: the key "root" is missing',
        'config.yaml:1:8: "store"',
        'config.yaml:2:1: unknown key "rooot". Did you mean "root"?',
        'config.yaml:3:16: "jobs"',
        'config.yaml:3:19: there is no kind of step "covert"',
        'config.yaml:4:9: unknown key "intervall"',
        'config.yaml:5:30: unknown key "tokns"',
        "config.yaml:7:18:",
        "config.yaml:8:10:",
        'config.yaml:11:12: "match": this is not a regular expression',
        'config.yaml:12:5: unknown key "keep_wrk"',
        'config.yaml:14:19: unknown key "qualty"',
        'config.yaml:15:23: there is no earlier step "conver"',
        'config.yaml:17:12: "match" takes too long',
        "config.yaml:19:25: there is no placeholder {stuy}",
        'config.yaml:19:25: "to": an absolute path',
        'config.yaml:21:5: the key "match" is missing',
        'config.yaml:21:13: there is no worker "covert"',
        'config.yaml:23:13: there is no kind of source "s4"',
    ):
        assert place in said, (place, said)
    for untrue in ("{study}", "{nam}", "no tokens", "Say who may"):
        assert untrue not in said, said
    assert len(said.splitlines()) == len(set(said.splitlines())) == 20
