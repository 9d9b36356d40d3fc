"""What can be found out of a site without a folder: credentials, permissions, controlled values."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable

from dittohead.archivesspace import records
from dittohead.archivesspace.client import opened
from dittohead.archivesspace.finding import enumerations, needed, wanted_values
from dittohead.archivesspace.options import ArchivesSpaceOptions
from dittohead.archivesspace.records import FORMAT, USE
from dittohead.errors import StepError

#: Values without which something is left out, and what that is.
_BETTER = {FORMAT: {"jp2": "JPEG 2000 is named in words", "iiif": "no viewer is shown for a manifest"}}
_BETTER[USE] = {"text-json": "no viewer is shown for a manifest"}

_UNDO = "delete_archival_record"


async def doctor(
    options: ArchivesSpaceOptions, secret: Callable[[str], str]
) -> AsyncIterator[tuple[bool, str]]:
    """Yield (ok, statement) for each thing worth checking."""
    try:
        async with opened(options, secret) as client:
            lacking = await client.lacks([*needed(options), _UNDO])
            answer = await client.send("GET", "/version")
            told = re.search(r"\(([^)]*)\)", answer.body.decode("utf-8", "replace"))
            yield True, f"{options.url}: ArchivesSpace {told[1] if told else 'of unknown version'}"
            if not options.url.startswith("https:"):
                yield True, "the password is sent without TLS; use https where others can listen"
            repository = await client.find(options.base)
            if repository is None:
                yield False, f"there is no repository {options.base}"
                return
            yield True, f"{options.base} is {repository.get('name') or repository.get('repo_code')}"
            for name in needed(options):
                has = name not in lacking
                yield has, f'the user "{options.user}" has {name}' + _lacks(has)
            if options.write:
                # Said, but no fault: who never undoes does not need it.
                yield True, f"undo {'cannot' if _UNDO in lacking else 'can'} delete records ({_UNDO})"
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
    except StepError as error:
        yield False, str(error)


def _lacks(has: bool) -> str:
    return "" if has else " not: put the user into a group of that repository that has it"
