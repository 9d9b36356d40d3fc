"""Command replace: another file in the place of one in a failed folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from dittohead.cli.base import NO_INPUT, with_config
from dittohead.cli.daemon_client import segment
from dittohead.cli.jobs import ask
from dittohead.cli.terminal import escape, fail, out
from dittohead.cli.view import find_place
from dittohead.model import paths
from dittohead.model.errors import ClosedError, ItemError
from dittohead.model.text import visible
from dittohead.model.units import size
from dittohead.system import files


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
    """Put another file in the place of FILE in a failed folder, and run the folder again.

    FILE is its path within the folder, as "dittohead show --files JOB" has it. The earlier file is kept
    below state/replaced/.
    """
    given = paths.path_fields(os.fsencode(file))
    path, encoding = given["path"], given.get("encoding", "")
    digest, length = _digest(new)
    out.print(f"{escape(str(new))}: {size(length)}, SHA-256 {digest}")
    here = find_place()
    client = here.client()
    if client is None:
        from dittohead.cli.without_daemon import offered

        id_, known = offered(here.root, job, path, encoding, new, digest)
    else:
        known = client.get(f"/api/v1/jobs/{segment(job)}")["id"]
        with open(new, "rb") as opened:
            id_ = client.offer(known, path, encoding, opened, digest)["id"]
        client.close()
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


COMMANDS = (replace,)
