"""The real daemon and the command line: test, list, enable, status, doctor; kill -9; a root without a daemon."""

from __future__ import annotations

import base64
import os
import pwd
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Site, site
from tests.support.receivers import hook_in_thread, mailbox

pytestmark = pytest.mark.service

SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()

CONFIG = """
root: .
space: {{floor: 0}}
watch: {{interval: 50ms}}
uploaders: {{"54321": nobody@example.org}}
pipelines:
  good: {{match: "good.*", steps: [{{command: {{argv: ["true"]}}}}]}}
  bad: {{match: "bad.*", steps: [{{command: {{argv: ["false"]}}}}]}}
notify:
{rules}
"""


def made(here: Site, **secrets: str) -> None:
    (here.root / "credentials").mkdir(exist_ok=True)
    for name, secret in secrets.items():
        (here.root / "credentials" / name).write_text(secret)


def test_a_kill_and_a_reload_lose_no_notice(tmp_path: Path) -> None:
    """A program is told of each under one id; people get digests that name every one of them."""
    with mailbox() as box, hook_in_thread(SECRET) as got:
        rules = f"""
  - webhook: {{url: "{got.url()}", secret_credential: hook}}
    on: [done, failed]
  - smtp: {{host: 127.0.0.1, port: {box.port}, sender: d@example.org, to: [a@example.org]}}
    on: [done, failed]
    digest: 2s
  - ping: {{url: "{got.url("/ping")}", every: 1s}}
"""
        with site(tmp_path / "root", CONFIG.format(rules=rules)) as here:
            made(here, hook=SECRET)
            here.start()
            names = [f"good-{n}" for n in range(12)] + [f"bad-{n}" for n in range(6)]
            for name in names:
                here.drop(name, {"a": "1"})
            here.until(lambda: len(got.taken) >= 5)
            here.kill()
            here.start()
            here.until(lambda: len({taken["data"]["job"]["name"] for taken in got.taken}) == len(names))
            here.until(lambda: "/ping" in got.gets)
            # Whom to ping, and whom to tell, may change meanwhile.
            here.config.write_text(here.config.read_text().replace("/ping", "/other"))
            assert here.process is not None
            here.process.send_signal(signal.SIGHUP)
            here.until(lambda: "/other" in got.gets)
            # The mails: a failure at once, the others in digests, each named once but for a repetition.
            here.until(lambda: {name for name in names if _named(box.mails, name)} == set(names))
        assert got.wrong == []
        assert {taken["type"] for taken in got.taken} == {"job.done", "job.failed"}
        by_id = {taken["id"]: taken["data"]["job"]["name"] for taken in got.taken}
        assert sorted(by_id.values()) == sorted(names)
        subjects = {mail["X-Dittohead-Notice"]: mail["Subject"] for mail in box.mails}
        assert sum(subject.startswith("Failed: ") for subject in subjects.values()) >= 1
        assert len(subjects) < len(names)


def _named(mails: list[Any], name: str) -> bool:
    return any(re.search(rf": {name}\s", f"{m['Subject']}\n{m.get_content()}") for m in mails)


def test_a_receiver_that_says_gone_is_disabled_loudly_and_enabled_by_a_test(tmp_path: Path) -> None:
    """Log, status, list, doctor, the other rules; and nothing is lost."""
    with mailbox() as box, hook_in_thread(SECRET) as got:
        rules = f"""
  - webhook: {{url: "{got.url("/T0KEN")}", secret_credential: hook}}
    on: [done]
    name: machine
  - smtp: {{host: 127.0.0.1, port: {box.port}, sender: d@example.org, to: [a@example.org, uploader]}}
    on: [failed]
"""
        with site(tmp_path / "root", CONFIG.format(rules=rules)) as here:
            made(here, hook=SECRET)
            got.answers = [(410, {})]
            here.start()
            here.drop("good-1", {"a": "1"})
            here.until(lambda: here.events("notify.disabled"))
            here.until(lambda: [mail["Subject"] for mail in box.mails] == ["No more notices to machine"])
            here.drop("good-2", {"a": "1"})
            here.until(lambda: (here.root / "done" / "good-2").exists())
            (machine, _) = here.json("notify", "list")
            assert (machine["name"], machine["waiting"]["parked"]) == ("machine", 2)
            assert machine["disabled_at"]
            assert "gets no notices machine: the receiver answered 410" in here.run("status").stdout
            doctor = here.json_failing("doctor")
            about = {found["about"]: found for found in doctor if found["level"] != "good"}
            assert about["notify, machine"]["level"] == "bad"  # though somebody listens there
            assert "dittohead notify test machine" in about["notify, machine"]["message"]
            assert f"{_my_name()} has no address" in about["notify, uploaders"]["message"]
            said = here.run("notify", "test", "machine")
            assert said.stdout == "machine: sent; it is enabled again\n"
            here.until(lambda: len(got.taken) == 3)
            assert sorted(taken["type"] for taken in got.taken) == ["job.done", "job.done", "notice.test"]
            listed = here.run("notify", "list").stdout
            assert "disabled" not in listed
            assert "machine (webhook): well" in listed
            assert "T0KEN" not in here.log.read_text() + said.stdout + listed


def test_a_test_says_of_each_receiver_what_came_of_it_without_a_daemon(tmp_path: Path) -> None:
    """Before the first start; with the exit status of what cannot be done now."""
    with mailbox() as box, hook_in_thread(SECRET) as got:
        rules = f"""
  - webhook: {{url: "{got.url()}", secret_credential: hook}}
    name: machine
  - smtp: {{host: 127.0.0.1, port: {box.port}, sender: d@example.org, to: [a@example.org]}}
  - ping: {{url: "{got.url("/ping")}"}}
"""
        with site(tmp_path / "root", CONFIG.format(rules=rules)) as here:
            assert [rule["kind"] for rule in here.json("notify", "list")] == ["webhook", "mail", "ping"]
            assert not (here.root / "state").exists()
            said = here.run("notify", "test", check=False)
            assert said.returncode == os.EX_UNAVAILABLE
            assert 'machine: not sent: there is no credential "hook"' in said.stderr
            assert "mail to a@example.org: sent" in said.stderr
    assert [mail["Subject"] for mail in box.mails] == ["Test of mail to a@example.org"]
    assert got.gets == ["/ping"]


def _my_name() -> str:
    """Return the name of the user who runs this, or the number of one who has none."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
