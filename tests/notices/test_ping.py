"""Pings: a monitor is told that the daemon is well, or that it is not; its own faults are said once."""

from __future__ import annotations

import pytest

from dittohead.config.notice_rules import Rule
from dittohead.notices.ping import Pinger, failing
from tests.support.receivers import Hook, hook

pytestmark = pytest.mark.service


def ping(got: Hook, path: str = "/uuid?rid=1") -> Rule:
    return Rule.model_validate({"ping": {"url": got.url(path), "every": "1m"}})


async def test_it_is_told_whether_the_daemon_is_well() -> None:
    """By the URL, or by that with /fail, each once in its time."""
    trouble = ""

    async def why() -> str:
        return trouble

    async with hook() as got:
        pinger = Pinger([ping(got)], {}.__getitem__, why)
        await pinger.ping_due()
        await pinger.ping_due()
        assert got.gets == ["/uuid?rid=1"]
        trouble = "the store cannot be written"
        pinger._due.clear()
        await pinger.ping_due()
    assert got.gets == ["/uuid?rid=1", "/uuid/fail?rid=1"]


async def test_a_monitor_that_cannot_be_reached_is_said_once_until_it_is_back(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Not each minute; and without its token."""

    async def well() -> str:
        return ""

    async with hook() as got:
        pinger = Pinger([ping(got, "/S3CRET")], {}.__getitem__, well)
        got.answers = [(500, {}), (404, {}), (302, {"Location": got.url("/x")})]
        for _ in range(5):
            pinger._due.clear()
            await pinger.ping_due()
        gone = Pinger([Rule.model_validate({"ping": {"url_credential": "none"}})], {}.__getitem__, well)
        await gone.ping_due()
    said = capsys.readouterr().out
    assert said.count("ping.failed") == 2
    assert said.count("ping.restored") == 1
    assert "S3CRET" not in said
    assert len(got.gets) == 5


async def test_one_that_is_taken_out_of_the_configuration_is_pinged_no_more() -> None:
    """And one that is put in is pinged at once."""

    async def well() -> str:
        return ""

    async with hook() as got:
        pinger = Pinger([ping(got, "/a")], {}.__getitem__, well)
        await pinger.ping_due()
        pinger.configure([ping(got, "/b")])
        pinger._due = dict.fromkeys(pinger._due, 0.0)
        await pinger.ping_due()
    assert got.gets == ["/a", "/b"]


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("https://hc.example.org/uuid", "https://hc.example.org/uuid/fail"),
        ("https://hc.example.org/uuid/", "https://hc.example.org/uuid/fail"),
        ("https://hc.example.org/key/slug?create=1", "https://hc.example.org/key/slug/fail?create=1"),
    ],
)
def test_the_url_that_says_that_something_is_wrong(url: str, wanted: str) -> None:
    """Before what is asked of it."""
    assert failing(url) == wanted
