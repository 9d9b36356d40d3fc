"""Rules: which way out, for whom, and known by a key that tells no secret."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from dittohead.config.json_schema import json_schema
from dittohead.config.loader import load
from dittohead.config.notice_rules import Rule, check_rules
from dittohead.config.registry import default
from dittohead.model.errors import ConfigError
from dittohead.model.states import JobState
from dittohead.system.users import Owner
from tests.support.notices import broken, composer, job, rule


def test_a_rule_names_one_way_only() -> None:
    """Which of two was meant cannot be guessed."""
    with pytest.raises(ValueError, match="exactly one of url, url_credential, smtp, webhook and ping"):
        rule(url="json://h", url_credential="x")
    with pytest.raises(ValueError, match="exactly one of url, url_credential, smtp, webhook and ping"):
        rule()


def test_a_rules_key_is_stable_and_tells_no_secret() -> None:
    """It is kept in the store across restarts; what is asked for may change without losing notices."""
    one = rule(url="json://user:S3CRET@h/S3CRET")
    assert one.key == rule(url="json://user:S3CRET@h/S3CRET", on=["done"]).key
    assert one.key != rule(url="json://user:S3CRET@other/S3CRET").key
    assert re.fullmatch("[0-9a-f]{16}", one.key)


def test_without_apprise_a_url_is_refused_when_the_configuration_is_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the command that corrects it; mail needs nothing."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    ((place, problem),) = check_rules([rule(url="json://h")])
    assert place == (0,)
    assert "pip install 'dittohead[notify]'" in problem
    assert list(check_rules([rule(smtp={"host": "h", "sender": "d@x", "to": ["a@x"]})])) == []


def test_apprise_is_loaded_only_when_a_rule_needs_it() -> None:
    """It is large; most sites send mail."""
    code = "import sys, dittohead.daemon; sys.exit('apprise' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


CONFIG = """\
root: .
pipelines: {scans: {match: ".*", steps: [{checksum: {}}]}}
"""


def problems(tmp_path: Path, text: str) -> str:
    (tmp_path / "config.yaml").write_text(CONFIG + text)
    with pytest.raises(ConfigError) as raised:
        load(tmp_path / "config.yaml", probe=False)
    return str(raised.value)


@pytest.mark.parametrize(
    ("text", "where", "said"),
    [
        ("notify:\n  - url: json://h\n    pipelines: [scnas]\n", "5:", 'no pipeline "scnas"'),
        ("notify:\n  - url: json://h\n    on: [dnoe]\n", "5:", '"on"'),
        ("notify:\n  - webhook: {url: 'ftp://h', secret_credential: s}\n", "4:", "begins with https://"),
        ("notify:\n  - webhook: {url: 'http://h'}\n", "4:", '"secret_credential" is missing'),
        ("notify:\n  - webhook: {secret_credential: s}\n", "4:", "exactly one of url and url_credential"),
        ("notify:\n  - ping: {url: 'http://h'}\n    on: [done]\n", "4:", "on has no meaning here"),
        ("notify:\n  - url: json://h\n    digest: soon\n", "5:", "is not a duration"),
        (
            "notify:\n  - {url: 'json://h', name: a}\n  - {url: 'json://g', name: a}\n",
            "5:",
            'an earlier rule is called "a" too',
        ),
        (
            "notify:\n  - smtp: {host: h, sender: d@x, to: [uploader]}\n",
            "4:",
            "no address is known",
        ),
        (
            "notify:\n  - smtp: {host: '127.0.0.1:8252', sender: d@x, to: [a@x]}\n",
            "4:",
            "write host: 127.0.0.1, port: 8252",
        ),
        ("notify:\n  - smtp: {host: 'a b', sender: d@x, to: [a@x]}\n", "4:", "a host name is needed"),
        ("notify:\n  - smtp: {host: h, sender: 'd example', to: [a@x]}\n", "4:", "an address is needed"),
        ("notify:\n  - smtp: {host: h, sender: d@x, to: [nonsense]}\n", "4:", '"nonsense" is not an address'),
        ('notify:\n  - smtp: {host: h, sender: d@x, to: ["a@x\\nBcc: e@x"]}\n', "4:", "is not an address"),
        ('uploaders: {bob: "b@x\\nBcc: e@x"}\n', "3:", '"bob"'),
        ("uploaders: {bob: nobody}\n", "3:", '"bob"'),
        ("uploaders_file: none.yaml\n", "none.yaml", "cannot be read"),
    ],
)
def test_each_mistake_is_named_with_line_and_key(tmp_path: Path, text: str, where: str, said: str) -> None:
    """At the start."""
    found = problems(tmp_path, text)
    assert where in found
    assert said in found


def test_addresses_come_from_a_file_too_and_its_mistakes_have_its_lines(tmp_path: Path) -> None:
    """What stands in config.yaml goes first."""
    (tmp_path / "people.yaml").write_text("1001: one@example.org\nbob: bob@example.org\n")
    (tmp_path / "config.yaml").write_text(CONFIG + "uploaders: {bob: b@y}\nuploaders_file: people.yaml\n")
    found = load(tmp_path / "config.yaml", probe=False)
    assert found.addresses == {"1001": "one@example.org", "bob": "b@y"}
    (tmp_path / "people.yaml").write_text("1001: one@example.org\nbob: [b]\n")
    assert "people.yaml:2:" in problems(tmp_path, "uploaders_file: people.yaml\n")


def test_a_rule_is_for_users_groups_and_numbers() -> None:
    """And of what is ignored, everybody is told."""
    alice = Owner(uid=1001, user="alice", groups=frozenset({"curators"}))
    for names, fits in (
        (["alice"], True),
        ([1001], True),
        (["@curators"], True),
        (["curators"], False),
        (["@alice", "bob"], False),
        ([], True),
    ):
        assert rule(url="json://h", uploaders=names).is_for(alice) is fits, names
    assert rule(url="json://h", uploaders=["bob"]).is_for(None)


def test_an_uploader_without_an_address_is_said_once_and_is_no_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The rule's other addresses are told all the same."""
    smtp = {"host": "h", "sender": "d@x", "to": ["all@example.org", "uploader"]}
    makes = composer([rule(smtp=smtp)], addresses={"1000": "one@example.org"})
    known = makes("failed", job=broken(), steps=[], receipt="r")
    assert [notice.recipient for notice in known] == ["", "one@example.org"]
    for _ in range(2):
        made = makes("failed", job=job(state=JobState.FAILED, uid=54321), steps=[], receipt="r")
        assert [notice.recipient for notice in made] == [""]
    assert capsys.readouterr().out.count("notify.no_address") == 1


def test_two_rules_of_one_receiver_tell_it_once() -> None:
    """The first decides whether it is gathered."""
    at_once, gathered = rule(url="json://h"), rule(url="json://h", on=["failed", "done"], digest="15m")
    makes = composer([at_once, gathered])
    (failed,) = makes("failed", job=broken(), steps=[], receipt="r")
    (done,) = makes("done", job=job(), steps=[], receipt="r")
    assert (failed.gather_s, done.gather_s) == (None, 900.0)


def test_pings_are_asked_for_nothing_and_shown_without_their_token() -> None:
    """They are rules only by where they stand."""
    ping = rule_of(ping={"url": "https://hc.example.org/S3CRET"})
    assert not any(ping.wants(event, None) for event in ("failed", "done", "stuck"))
    assert "S3CRET" not in ping.shown


def rule_of(**fields: Any) -> Rule:
    return Rule.model_validate(fields)


def test_the_pages_example_is_good_by_the_schema_that_editors_have() -> None:
    """Numbers of users, one secret or several."""
    page = (Path(__file__).parent.parent.parent / "docs" / "notices.md").read_text()
    (block,) = re.findall(r"```yaml\n(pipelines:\n.*?)```", page, re.DOTALL)
    given = yaml.safe_load(f"root: .\n{block}".replace("on:", '"on":').replace("1001: bob", '"1001": bob'))
    jsonschema.validate(given, json_schema(default()))
