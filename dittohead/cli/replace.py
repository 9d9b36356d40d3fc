"""Command replace: another file in the place of one in a failed folder."""

from __future__ import annotations

import getpass
import os
import shutil
from pathlib import Path
from typing import Any

import click

from dittohead import files, lock, manifest, queries
from dittohead.cli.base import NO_INPUT, TEMPORARY, escape, fail, load_config, out, reading, with_config
from dittohead.cli.door import Door, segment
from dittohead.cli.jobs import ask, must_be_its_user
from dittohead.cli.view import find_place
from dittohead.errors import ClosedError, DittoheadError, ItemError
from dittohead.model import JobState, visible
from dittohead.replacing import Replacements
from dittohead.stations import Stations
from dittohead.units import size


@click.command()
@with_config
@click.argument("job")
@click.argument("file")
@click.option(
    "--with", "new", required=True, metavar="NEW", type=click.Path(path_type=Path), help="The new file."
)
@click.option("--reason", default="", help="Why; stands in both jobs' receipts.")
@click.option("--no-run", is_flag=True, help="More files are to be replaced; then: dittohead rerun JOB.")
def replace(job: str, file: str, new: Path, reason: str, no_run: bool) -> None:
    """Put another file in the place of FILE in a failed folder, and do the folder again.

    FILE is its path within the folder, as "dittohead show --files JOB" has it. The earlier file is kept
    below state/replaced/.
    """
    given = manifest.path_fields(os.fsencode(file))
    path, encoding = given["path"], given.get("encoding", "")
    digest, length = _digest(new)
    out.print(f"{escape(str(new))}: {size(length)}, SHA-256 {digest}")
    stations = Stations(find_place().root)
    door = Door.open(stations.state)
    if door is None:
        id_, known = _beside(stations, job, path, encoding, new, digest)
    else:
        known = door.get(f"/api/v1/jobs/{segment(job)}")["id"]
        with open(new, "rb") as opened:
            id_ = door.offer(known, path, encoding, opened, digest)["id"]
        door.close()
    args: dict[str, Any] = {"with": id_, "reason": reason, "run": not no_run}
    ask("replace", (known,), **args)


def _digest(new: Path) -> tuple[str, int]:
    """Return the new file's SHA-256 and size."""
    try:
        return files.sha256_file(new)
    except ItemError as error:
        why = "this user may not read it" if isinstance(error, ClosedError) else error.what
    except OSError as error:
        why = os.strerror(error.errno or 0)
    fail(f"{visible(str(new))}: the new file cannot be read ({why})", NO_INPUT)


def _beside(
    stations: Stations, job: str, path: str, encoding: str, new: Path, digest: str
) -> tuple[str, str]:
    """Let a new file wait where no daemon takes it; return (its id, the job's)."""
    if lock.is_held(stations.state):
        fail("the daemon does not answer; try again in a moment: dittohead status", TEMPORARY)
    must_be_its_user(stations.state)
    replacements = Replacements(stations)
    with reading(load_config()) as (store, _):
        found = store.run(queries.resolve, job, (JobState.FAILED,))
    if found.state is not JobState.FAILED:
        raise DittoheadError(f"{found.name} has not failed ({found.state})")
    offer = replacements.expect(found, path, encoding, getpass.getuser())
    with replacements.receiving(offer) as file, open(new, "rb") as source:
        shutil.copyfileobj(source, file, files.BLOCK)
    return replacements.received(offer, digest).id, found.id


COMMANDS = (replace,)
