"""Rules: which way out, for whom, and known by a key that tells no secret."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys

import pytest

from dittohead.rules import check_rules
from tests.support.notices import rule


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
    """With the command that mends it; mail needs nothing."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    ((place, problem),) = check_rules([rule(url="json://h")])
    assert place == (0,)
    assert "pip install 'dittohead[notify]'" in problem
    assert list(check_rules([rule(smtp={"host": "h", "sender": "d@x", "to": ["a@x"]})])) == []


def test_apprise_is_loaded_only_when_a_rule_needs_it() -> None:
    """It is large; most sites send mail."""
    code = "import sys, dittohead.daemon; sys.exit('apprise' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
