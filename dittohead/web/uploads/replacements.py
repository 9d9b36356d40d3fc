"""A new file for a failed folder, on its way in: received, read back, and kept until it is asked for."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from aiohttp import web

from dittohead.config.settings import Drop
from dittohead.folders.replacement import Offer, Replacements
from dittohead.model import units
from dittohead.model.errors import ItemError
from dittohead.model.records import Job
from dittohead.model.states import JobState
from dittohead.system import disk_space
from dittohead.system.threads import in_thread
from dittohead.web.server.app_state import SITE
from dittohead.web.server.identity import identity
from dittohead.web.server.problems import Problem
from dittohead.web.uploads.incoming import write_chunks

T = TypeVar("T")

#: Source: RFC 9530, Content-Digest.
_DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/]{43}=):")


def announced(request: web.Request) -> str:
    """Return the SHA-256 that the sender has computed, in hex; "" where it is not told."""
    found = _DIGEST.search(request.headers.get("Content-Digest", ""))
    return base64.b64decode(found[1]).hex() if found else ""


async def receive(
    request: web.Request, job: Job, path: str, encoding: str, chunks: AsyncIterator[bytes], sha256: str = ""
) -> Offer:
    """Receive a new file in place of a damaged one; it waits until the person confirms.

    Args:
        request: whose it is; its person is recorded.
        job: a job that has failed.
        path: the damaged file, relative to its folder, as the list of files has it.
        encoding: "percent" where the path is percent-encoded, otherwise "".
        chunks: the file's bytes.
        sha256: what its SHA-256 has to be, in hex; "" when the sender does not say.

    Raises: Problem: it cannot replace anything, did not come whole, or does not fit; TimeoutError,
        ConnectionError: the sender has gone.
    """
    site = request.app[SITE]
    if job.state is not JobState.FAILED:
        raise Problem(409, f"{job.name} has not failed ({job.state})")
    replacements = Replacements(site.stations)
    offer = await _said(lambda: replacements.expect(job, path, encoding, identity(request).name))
    settings = site.config().settings
    bounds = settings.http.drop if settings.http is not None else Drop.model_validate({})
    _must_fit(request, request.content_length or 0)
    try:
        with replacements.receiving(offer) as file:
            await write_chunks(chunks, file.fileno(), bounds.most_bytes)
    except (TimeoutError, ConnectionError):  # the sender; the disk is well
        raise
    except OSError as error:
        raise Problem(507, f"this could not be written: {error.strerror}") from error
    return await _said(lambda: replacements.received(offer, sha256))


async def waiting(request: web.Request, job: Job, id_: str) -> Offer:
    """Return a file that waits to replace one in a job's folder.

    Args:
        id_: the offer's id.

    Raises: Problem: there is none.
    """
    replacements = Replacements(request.app[SITE].stations)
    return await _said(lambda: replacements.get(id_, job.id))


def _must_fit(request: web.Request, size: int) -> None:
    site = request.app[SITE]
    lacking = disk_space.lacking(site.stations.state, size, site.config().settings.space.floor)
    if lacking > 0:
        raise Problem(507, f"there is not room for it on the disk: {units.size(lacking)} more are needed")


async def _said(work: Callable[[], T]) -> T:
    """Run blocking work and say its refusals as answers. Raises: Problem."""
    try:
        return await in_thread(lambda stop: work())
    except ItemError as error:
        where = f"{error.where}: " if error.where else ""
        raise Problem(409, f"{where}{error.what}", hint=error.hint) from error
    except OSError as error:
        raise Problem(507, f"this could not be written: {error.strerror}") from error
