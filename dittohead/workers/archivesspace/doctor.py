"""What can be found out of a site without a folder: credentials, permissions, controlled values."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from dittohead.model.errors import StepError
from dittohead.workers.archivesspace import records
from dittohead.workers.archivesspace.client import ArchivesSpaceClient, opened
from dittohead.workers.archivesspace.options import ArchivesSpaceOptions
from dittohead.workers.archivesspace.preflight import (
    enumerations,
    missing_agent,
    needed,
    permission,
    wanted_values,
)
from dittohead.workers.archivesspace.records import FORMAT, USE

#: Values without which something is left out, and what that is.
_BETTER = {FORMAT: {"jp2": "JPEG 2000 is named in words", "iiif": "no viewer is shown for a manifest"}}
_BETTER[USE] = {"text-json": "no viewer is shown for a manifest"}

_UNDO = "delete_archival_record"
_UNDO_EVENTS = "delete_event_record"
_DELETES = {_UNDO: "records", _UNDO_EVENTS: "events"}


async def doctor(
    options: ArchivesSpaceOptions, secret: Callable[[str], str]
) -> AsyncIterator[tuple[bool, str]]:
    """Yield (ok, statement) for each thing worth checking."""
    try:
        async with opened(options, secret) as client:
            undo = [_UNDO, *([_UNDO_EVENTS] if options.events else ())]
            lacking = await client.lacks([*needed(options), *undo])
            yield True, f"{options.url}: ArchivesSpace {await client.version() or 'of unknown version'}"
            if not options.url.startswith("https:"):
                yield True, "the password is sent without TLS; use https where others can listen"
            repository = await client.find(options.base)
            if repository is None:
                yield False, f"there is no repository {options.base}"
                return
            yield True, f"{options.base} is {repository.get('name') or repository.get('repo_code')}"
            for name in needed(options):
                has = name not in lacking
                yield has, f'the user "{options.user}" {_has(has)} {permission(name)}' + _lacks(has)
            if options.write:
                yield await _sight(client)
                for name in undo:
                    # Said, but no fault: who never undoes does not need it.
                    able = "cannot" if name in lacking else "can"
                    yield True, f"undo {able} delete {_DELETES[name]} ({permission(name)})"
                async for one in _values(client):
                    yield one
            if options.write and options.events:
                problem = await missing_agent(client, options)
                yield not problem, problem or "the agent of events is there, or can be made"
    except StepError as error:
        yield False, str(error)


async def _values(client: ArchivesSpaceClient) -> AsyncIterator[tuple[bool, str]]:
    """Say what the site's controlled lists have and lack."""
    options = client.options
    wanted = wanted_values(options, [records.kind_of(b"x.tif")])
    known = await enumerations(client, {*wanted, USE, FORMAT})
    for name, values in wanted.items():
        missing = values - known[name]
        where = records.where_to_add(missing, name, options.staff_url)
        yield not missing, where if missing else f"{name} has {', '.join(sorted(values))}"
    for name, better in _BETTER.items():
        for value in sorted(better.keys() - known[name]):
            where = records.where_to_add([value], name, options.staff_url)
            yield True, f"without it {better[value]}; if that matters, {where}"


async def _sight(client: ArchivesSpaceClient) -> tuple[bool, str]:
    """Say whether what is suppressed is seen: who is not shown it deletes links to it by saving."""
    try:
        shown = await client.see_all(may_set=False)
    except StepError as error:
        return False, str(error)
    user = client.options.user
    words = "is shown suppressed records" + ("" if shown else " as soon as the first job sets its preference")
    return True, f'the user "{user}" {words}'


def _has(has: bool) -> str:
    return "has" if has else "lacks"


def _lacks(has: bool) -> str:
    return "" if has else ": put the user into a group of that repository that has it"
