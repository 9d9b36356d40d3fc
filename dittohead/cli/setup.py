"""Commands before the first run: init, check, doctor, schema."""

from __future__ import annotations

import asyncio
import os
from contextlib import nullcontext
from importlib.resources import files
from pathlib import Path

import click

from dittohead import __version__
from dittohead.admin.credential_check import Vouched, vouch
from dittohead.admin.doctor import DoctorFinding, examine, exposures
from dittohead.cli import advice
from dittohead.cli.base import DATA, config_path, json_option, with_config
from dittohead.cli.daemon_client import DaemonClient
from dittohead.cli.open_config import has_store, load_config, reading
from dittohead.cli.terminal import err, escape, fail, out, print_json
from dittohead.config import registry
from dittohead.config.json_schema import json_schema
from dittohead.config.loader import Config, load
from dittohead.config.positions import Document
from dittohead.folders.stations import Stations
from dittohead.model.errors import ConfigError, DittoheadError
from dittohead.model.text import is_utf8, visible
from dittohead.notices import doctor as receivers
from dittohead.system import lock
from dittohead.system.credentials import Credentials
from dittohead.system.files import write_durably
from dittohead.system.service_units import unit_of
from dittohead.system.users import owner


@click.command()
@with_config
@click.argument("directory", type=click.Path(path_type=Path), default=".")
@click.pass_context
def init(ctx: click.Context, directory: Path) -> None:
    """Write a commented config.yaml and make the stations.

    DIRECTORY becomes the root; by default the present directory. An existing config.yaml is kept.
    """
    path = ctx.obj["config"] or directory / "config.yaml"
    if path.exists():
        fail(f"{visible(str(path))}: is there already; it was not touched", DATA)
    if not is_utf8(os.fsencode(directory.absolute())):
        fail(f"{visible(str(directory))}: the name of this directory is not UTF-8 text", DATA)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = files("dittohead.cli").joinpath("init.yaml").read_text(encoding="utf-8")
    root = os.path.relpath(directory.absolute(), path.parent.absolute())
    delivered = str(directory.absolute() / "delivered")
    write_durably(path, text.replace("@ROOT@", root).replace("@DELIVER@", delivered).encode(), 0o644)
    Stations(directory.absolute()).prepare()
    out.print(f"{escape(str(path))}: written; the stations are in {escape(str(directory.absolute()))}")
    out.print(f"Next: edit it, then: dittohead --config {escape(str(path))} check")


@click.command()
@with_config
@json_option
def check(as_json: bool) -> None:
    """Check config.yaml: every error with its line, and what to write instead."""
    path = config_path()
    if not as_json:
        _say_which(path)
    vouched: list[Vouched] = []

    def credentials(document: Document) -> tuple[DittoheadError, ...]:
        within = "CREDENTIALS_DIRECTORY" in os.environ  # the service itself, or what plays its part
        vouched.append(vouch(document, None if within else unit_of(path)))
        return vouched[0].problems

    config = load(path, probe=True, also=credentials)
    if config.doubts:
        raise ConfigError("the configuration has errors", problems=config.doubts)
    found = list(exposures(config))
    if as_json:
        print_json(
            {
                "path": str(config.path),
                "root": str(config.root),
                "exposed": [{"path": one.about, "message": one.message} for one in found],
                "unseen": list(vouched[0].unseen),
                "limits": config.limits,
                "pipelines": [
                    {"name": p.name, "match": p.match.pattern, **p.definition().as_dict()}
                    for p in config.pipelines
                ],
                "sources": [
                    {"name": s.name, s.kind: s.options.model_dump(mode="json", by_alias=True)}
                    for s in config.sources
                ],
            }
        )
        return
    out.print(f"{escape(str(config.path))}: good")
    for pipeline in config.pipelines:
        steps = " → ".join(step.name for step in pipeline.steps)
        out.print(f"  {escape(pipeline.name)}: {escape(pipeline.match.pattern)}: {escape(steps)}")
    for source in config.sources:
        out.print(f"  source {escape(source.name)}: {source.kind}")
    for one in found:
        err.print(f"[yellow]warning:[/yellow] {escape(one.about)}: {escape(one.message)}")
    _say_unseen(vouched[0])


def _say_which(path: Path) -> None:
    """Say which file it is about, and which one the service reads where that is another."""
    out.print(f"reads {escape(str(path.absolute()))}")
    if click.get_current_context().obj["config"] is not None:  # else it is said already
        advice.note_other_service(path)


def _say_unseen(vouched: Vouched) -> None:
    """Say of which credentials this user cannot know, and who can."""
    if vouched.unseen:
        names = ", ".join(vouched.unseen)
        me = owner(os.geteuid()).user
        ask = (
            f"the running service can: sudo {advice.command('doctor')}"
            if os.geteuid() == 0
            else f"root can: sudo {advice.command('check')}"
        )
        err.print(
            f"[yellow]note:[/yellow] whether these credentials are there, {escape(me)} may not see: "
            f"{escape(names)}; {escape(ask)}"
        )


@click.command()
@with_config
@json_option
def doctor(as_json: bool) -> None:
    """Look at permissions, programs, the image library and the targets; say what to do.

    Where a daemon runs, it looks itself: with its user, its groups, its sandbox and its credentials.
    Where none runs, this command looks as the user who typed it.
    """
    config = load_config()
    client = DaemonClient.open(Stations(config.root).state)
    if client is not None:
        found = [DoctorFinding(**fields) for fields in client.examine()]
        client.close()
        who = "the running daemon looked"
    else:
        found = _examined_here(config)
        who = f"looked as {owner(os.geteuid()).user}"
    if as_json:
        print_json([{"level": f.level, "about": f.about, "message": f.message} for f in found])
    else:
        _say_which(config.path)
        out.print(f"dittohead {__version__}; {who}")
        for finding in found:
            _print(finding)
    if any(finding.level == "bad" for finding in found):
        err.print("[red]Something is wrong; see above.[/red]")
        raise click.exceptions.Exit(DATA)


def _examined_here(config: Config) -> list[DoctorFinding]:
    """Look without a daemon; say where the service would look with other eyes."""
    with reading(config) if has_store(config) else nullcontext((None, None)) as (store, _):
        found = asyncio.run(
            examine(config, registry.default(), Credentials(config.path).needed, store, receivers.probe_all)
        )
    if lock.is_held(Stations(config.root).state):
        message = "a daemon runs and could not be asked; it may see other things than this user does"
        found.append(DoctorFinding(level="warning", about="daemon", message=message))
    return found


def _print(finding: DoctorFinding) -> None:
    mark = {"good": "[green]ok  [/green]", "warning": "[yellow]warn[/yellow]", "bad": "[red]bad [/red]"}
    out.print(f"{mark[finding.level]} {escape(finding.about)}: {escape(finding.message)}")


@click.command()
def schema() -> None:
    """Print the JSON Schema of config.yaml, for editors."""
    print_json(json_schema(registry.default()))


COMMANDS = (init, check, doctor, schema)
