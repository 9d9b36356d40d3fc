"""Commands on OCFL storage roots: list, verify, export. They read files alone; no daemon is asked."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import click

from dittohead.cli.base import DATA, NO_INPUT, json_option
from dittohead.cli.terminal import escape, fail, out
from dittohead.model.text import counted, display
from dittohead.system import files
from dittohead.toolkit.ocfl import check, digests, inventory, layouts, storage_root
from dittohead.toolkit.ocfl.check import ObjectCheck, RootCheck
from dittohead.toolkit.ocfl.findings import OcflFindings
from dittohead.toolkit.ocfl.inventory import Inventory

_ROOT = click.argument("root", type=click.Path(exists=True, file_okay=False, path_type=Path))


@click.group()
def ocfl() -> None:
    """Look at an OCFL storage root: list its objects, verify them, export one."""


@ocfl.command(name="list")
@_ROOT
@json_option
def list_(root: Path, as_json: bool) -> None:
    """List the objects of a storage root: id, latest version, files, and where it lies."""
    _see_root(root)
    for path in check.objects(os.fsencode(root)):
        found = _inventory(os.path.join(os.fsencode(root), path))
        if found is None:
            row: dict[str, Any] = {"id": None, "path": display(path)}
            _show(row, as_json, f"{display(path)}: its inventory is not valid")
            continue
        state = found.state(found.head)
        line = f"{found.id}  {found.head}  {counted(len(state), 'file')}  {display(path)}"
        row = {"id": found.id, "head": found.head, "files": len(state), "path": display(path)}
        _show(row, as_json, line)


@ocfl.command()
@_ROOT
@click.argument("id_", metavar="[ID]", required=False)
@click.option("--quick", is_flag=True, help="Read no content: structure and inventories alone.")
@json_option
def verify(root: Path, id_: str | None, quick: bool, as_json: bool) -> None:
    """Validate a storage root with all its objects, or one object; every finding has the code of OCFL 1.1."""
    if id_ is None:
        whole = RootCheck(root, work=storage_root.WORK)
        findings, what = whole.run(content=not quick), ""
        what = counted(whole.objects, "object")
    else:
        one = ObjectCheck(_find(root, id_))
        one.run(() if quick else None)
        findings, what = one.findings, id_
    _report(findings, what, as_json)


@ocfl.command()
@_ROOT
@click.argument("id_", metavar="ID")
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--version", help="Another version than the latest, such as v1.")
def export(root: Path, id_: str, target: Path, version: str | None) -> None:
    """Copy a version's files to TARGET, a new directory, under their own names; each is verified."""
    place = _find(root, id_)
    found = _inventory(place)
    if found is None:
        fail(f"{display(place)}: its inventory is not valid. Type: dittohead ocfl verify {root}", DATA)
    chosen = version or found.head
    if chosen not in found.versions:
        fail(f"{id_} has no version {chosen}; it has {', '.join(found.versions)}", NO_INPUT)
    if target.exists():
        fail(f"{target}: exists already. Give the name of a new directory", NO_INPUT)
    state = found.state(chosen)
    made = target.with_name(f".{target.name}.part")
    made.mkdir()
    for logical, digest in state.items():
        _copy(place, found, digest, made / logical)
    files.sync_filesystem(made)
    files.rename_noreplace(os.fsencode(made), os.fsencode(target))
    files.fsync_dir(target.absolute().parent)
    out.print(escape(f"{id_} {chosen}: {counted(len(state), 'file')} to {target}, each verified"))


def _see_root(root: Path) -> None:
    if not check.declaration(os.listdir(root)):
        fail(f"{root}: not an OCFL storage root: no file called 0=ocfl_1.1 is there", NO_INPUT)


def _inventory(place: bytes) -> Inventory | None:
    findings = OcflFindings()
    with contextlib.suppress(OSError):
        data = Path(os.fsdecode(place), inventory.FILE).read_bytes()
        found = inventory.read(data, findings)
        return None if findings.errors else found
    return None


def _find(root: Path, id_: str) -> bytes:
    """Return the directory of an object: by the layout, or by its inventory where the root says none."""
    _see_root(root)
    base = os.fsencode(root)
    for place in _places(base, id_):
        found = _inventory(place)
        if found is not None and found.id == id_:
            return place
        if found is None and os.path.isdir(place):
            return place  # what is wrong with it is said by who reads it
    fail(f'{root}: there is no object "{id_}". Type: dittohead ocfl list {root}', NO_INPUT)


def _places(base: bytes, id_: str) -> Iterator[bytes]:
    try:
        yield os.path.join(base, check.read_layout(base).path(id_).encode())
    except (layouts.BadLayout, layouts.NoPlace, OSError):
        for path in check.objects(base):
            found = _inventory(os.path.join(base, path))
            if found is not None and found.id == id_:
                yield os.path.join(base, path)


def _copy(place: bytes, found: Inventory, digest: str, to: Path) -> None:
    content = found.manifest[digest][0]
    to.parent.mkdir(parents=True, exist_ok=True)
    with files.opened_beneath(place, os.fsencode(content)) as fd, open(to, "xb") as file:
        taken = digests.of_file(fd, {found.algorithm}, lambda block: _write(file, block))
    if taken[found.algorithm] != digest.lower():
        where = f"{display(place)}/{content}"
        fail(f"{where}: its digest is not the recorded one. What was copied is in {to}", DATA)


def _write(file: IO[bytes], block: memoryview) -> None:
    file.write(block)


def _report(findings: OcflFindings, what: str, as_json: bool) -> None:
    for one in (*findings.errors, *findings.warnings):
        row: dict[str, Any] = {"code": one.code, "where": one.where, "what": one.what}
        _show(row, as_json, str(one))
    if not as_json:
        verdict = "not valid" if findings.errors else "valid"
        counts = f"{counted(len(findings.errors), 'error')}, {counted(len(findings.warnings), 'warning')}"
        out.print(escape(f"{what}: {verdict}; {counts}"))
    if findings.errors:
        raise SystemExit(DATA)


def _show(row: dict[str, Any], as_json: bool, line: str) -> None:
    if as_json:
        click.echo(json.dumps(row))
    else:
        out.print(escape(line))


COMMANDS = (ocfl,)
