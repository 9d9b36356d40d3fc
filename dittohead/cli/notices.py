"""Commands on notices: notify list, notify test, notify enable."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from dittohead.cli.base import USAGE, json_option, with_config
from dittohead.cli.jobs import ask
from dittohead.cli.open_config import has_store, load_config, reading
from dittohead.cli.terminal import escape, fail, out, print_json
from dittohead.cli.without_daemon import must_be_its_user
from dittohead.config.loader import Config
from dittohead.config.notice_rules import Rule, shown
from dittohead.folders.stations import Stations
from dittohead.model.errors import DittoheadError
from dittohead.model.states import PENDING, NoticeState
from dittohead.model.text import counted, rfc3339
from dittohead.notices import commands
from dittohead.store import outbox as outbox_store
from dittohead.store.connect import open_store
from dittohead.store.outbox import ReceiverRow
from dittohead.system import lock


@click.group()
def notify() -> None:
    """Look at who gets which notices, send a test, enable a receiver that was disabled."""


@notify.command(name="list")
@with_config
@json_option
def list_(as_json: bool) -> None:
    """Show each rule: its events, what waits for it, its last error, whether it is disabled."""
    config = load_config()
    known: dict[str, ReceiverRow] = {}
    waiting: dict[str, dict[str, int]] = {}
    if has_store(config):
        with reading(config) as (store, _):
            known = store.run(outbox_store.receiver_rows)
            waiting = store.run(outbox_store.waiting)
    found = [
        _fields(number, rule, known.get(rule.key), waiting.get(rule.key, {}))
        for number, rule in enumerate(config.settings.notify, 1)
    ]
    if as_json:
        print_json(found)
        return
    if not found:
        out.print("there are no rules under notify: in the configuration")
    for fields in found:
        _print(fields)


def _fields(number: int, rule: Rule, known: ReceiverRow | None, waiting: dict[str, int]) -> dict[str, Any]:
    return {
        "number": number,
        "key": rule.key,
        "name": rule.name,
        "to": shown(rule),
        "kind": rule.kind,
        "events": [] if rule.ping else list(rule.on),
        "pipelines": rule.pipelines,
        "uploaders": rule.uploaders,
        "digest_seconds": rule.digest,
        "waiting": {state: waiting.get(state, 0) for state in NoticeState if state in PENDING},
        "disabled_at": _moment(known.disabled_at if known else None),
        "failing_since": _moment(known.failing_since if known else None),
        "last_error": known.error if known else "",
        "last_error_at": _moment(known.error_at if known else None),
    }


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else rfc3339(datetime.fromtimestamp(seconds, UTC))


def _print(fields: dict[str, Any]) -> None:
    state = "[green]well[/green]"
    if fields["failing_since"]:
        state = f"[yellow]failing[/yellow] since {fields['failing_since']}"
    if fields["disabled_at"]:
        state = f"[red]disabled[/red] since {fields['disabled_at']}"
    out.print(f"{fields['number']}. [bold]{escape(fields['to'])}[/bold] ({fields['kind']}): {state}")
    for name, part in (("only pipelines", "pipelines"), ("only uploaders", "uploaders")):
        if fields[part]:
            out.print(f"  {name}: {escape(', '.join(fields[part]))}")
    if fields["events"]:
        out.print(f"  gets notices of: {', '.join(fields['events'])}")
    waiting = fields["waiting"]
    if any(waiting.values()):
        out.print(
            f"  {counted(waiting['due'], 'notice')} to be sent, {waiting['held']:,} held for a digest, "
            f"{waiting['parked']:,} kept until it is enabled"
        )
    if fields["last_error"]:
        out.print(f"  last error: {escape(fields['last_error'])} ({fields['last_error_at']})")
    if fields["disabled_at"]:
        called = fields["name"] or fields["number"]
        out.print(f"  when it is fixed: dittohead notify test {escape(str(called))}")


@notify.command()
@with_config
@click.argument("rule", required=False, default="")
def test(rule: str) -> None:
    """Send a test to every receiver, or to that of RULE (a name or a number), and say what came of it.

    A receiver that was disabled and takes it is enabled again. The running daemon sends it, with its
    credentials; without one it is sent from here.
    """
    config = load_config()
    key = _chosen(config, rule)
    _make_store(config)
    ask("notify-test", (key,))


@notify.command()
@with_config
@click.argument("rule")
def enable(rule: str) -> None:
    """Send the receiver of RULE (a name or a number) notices again, and those that were kept for it."""
    config = load_config()
    key = _chosen(config, rule)
    _make_store(config)
    ask("notify-enable", (key,))


def _chosen(config: Config, rule: str) -> str:
    """Return the key of the rule that is meant; "" for all."""
    try:
        return commands.find(list(config.settings.notify), rule).key if rule else ""
    except DittoheadError as error:
        fail(str(error), USAGE)


def _make_store(config: Config) -> None:
    """Make what a first start would: receivers are best tried before it."""
    stations = Stations(config.root)
    if has_store(config) or lock.is_held(stations.state):
        return
    if config.root.exists():
        must_be_its_user(config.root)
    stations.prepare()
    open_store(config, stations).close()


COMMANDS = (notify,)
