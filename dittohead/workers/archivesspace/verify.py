"""Reading back what was written, and comparing it again years later."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import quote, unquote, urlsplit

from yarl import URL

from dittohead.contract.worker import VerifyContext
from dittohead.model.errors import ItemError, StepError, TransientError
from dittohead.model.records import Location, Use
from dittohead.toolkit.rest import Rest, RestAnswer, RestSite, connected
from dittohead.workers.archivesspace import diff, records
from dittohead.workers.archivesspace.client import ArchivesSpaceClient, number_of
from dittohead.workers.archivesspace.delivered import PublishedFile
from dittohead.workers.archivesspace.diff import ComponentDifference, WantedRecord
from dittohead.workers.archivesspace.options import ArchivesSpaceOptions
from dittohead.workers.archivesspace.records import Enumerations, Record

VERIFIED_BY = "read back"

#: Redirects that a public page may take: to https, to its alias.
_HOPS = 5
_MOVED = frozenset({301, 302, 303, 307, 308})

_GONE = "is gone"

#: Components that are read and compared at once.
_AT_ONCE = 200


# -- what the public will see ----------------------------------------------------------------


async def fetch_shown(options: ArchivesSpaceOptions, wanted: Iterable[WantedRecord]) -> None:
    """Fetch each page, thumbnail and manifest as the public would, and compare it where its digest is known.

    Raises: TransientError: it is not there, or not what was made; TargetError: no connection.
    """
    for one in wanted:
        for shown in one.shown:
            await _fetch(options, shown)


async def _fetch(options: ArchivesSpaceOptions, shown: PublishedFile) -> None:
    uri = shown.uri
    for _ in range(_HOPS):
        parts = urlsplit(uri)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ItemError("this is not an address that the public can open", where=shown.uri)
        # A session of its own: what is public needs nothing of ours, and is to be given nothing.
        bundle = options.ca_bundle if parts.hostname == urlsplit(options.url).hostname else ""
        site = RestSite(url=f"{parts.scheme}://{parts.netloc}", ca_bundle=bundle)
        async with connected(site) as rest:
            answer = await _got(rest, uri)
        if answer.status not in _MOVED:
            break
        uri = _next(uri, answer)
    else:
        raise TransientError("it redirects again and again", where=shown.uri)
    hint = f"It is to be recorded as the {shown.use} that the public sees; make it public, or wait"
    if answer.status != 200:
        raise TransientError(f"it answers {answer.status}", where=shown.uri, hint=hint)
    if shown.sha256 and records.sha256(answer.body) != shown.sha256:
        raise TransientError("what is there is not what was made", where=shown.uri, hint=hint)


async def _got(rest: Rest, uri: str) -> RestAnswer:
    return await rest.send("GET", uri, headers={"Accept": "*/*"})


def _next(uri: str, answer: RestAnswer) -> str:
    target = answer.headers.get("Location", "")
    try:
        joined = str(URL(uri, encoded=True).join(URL(target)))
    except ValueError:
        joined = ""
    if not joined.startswith(("http://", "https://")):
        raise TransientError("it redirects to nowhere", where=uri)
    return joined


# -- after recording -------------------------------------------------------------------------


async def read_back(
    client: ArchivesSpaceClient,
    options: ArchivesSpaceOptions,
    known: Enumerations,
    of: WantedRecord,
    found: ComponentDifference,
) -> list[Location]:
    """Read what was recorded for an object once more, and return where it is.

    Args:
        known: the controlled values that the site has, by enumeration.
        of: what was to be recorded.
        found: what was written, and what was there as it should be.

    Raises: TransientError: it is not what was written; also TargetError: the site cannot be read.
    """
    object_ = await client.get(of.found.digital_object)
    access = of.access(options, known)
    if diff.with_own(of, options, known, object_.get("file_versions", []), ()) is not None:
        raise _changed(client, of.found.digital_object)
    archival = await client.get(of.found.uri)
    if records.linked(archival).count(of.found.digital_object) != 1:
        raise _changed(client, of.found.uri)
    made = [
        _location(client, archival, records.digest([of.found.uri, of.found.digital_object])),
        _object_location(client, of, object_),
    ]
    made += [_location(client, object_, _version(one), part=one["file_uri"]) for one in access]
    made += [_location(client, kept, kept["fixity"], path=page.path) for page, kept in found.same]
    return made


def _object_location(client: ArchivesSpaceClient, of: WantedRecord, object_: Record) -> Location:
    """Return where a digital object is; one for a single file stands for that file."""
    if of.found.each and of.pages:
        return _location(client, object_, records.fixity(_as_component(object_)), path=of.pages[0].path)
    return _location(client, object_, records.digest([object_["digital_object_id"]]))


def _as_component(object_: Record) -> Record:
    return object_ | {"component_id": object_["digital_object_id"]}


def _changed(client: ArchivesSpaceClient, uri: str) -> TransientError:
    return TransientError("what was recorded was changed by others meanwhile", where=client.shown(uri))


def _location(
    client: ArchivesSpaceClient, record: Record, sha256: str, *, path: bytes = b"", part: str = ""
) -> Location:
    fragment = "#" + quote(part, safe="") if part else ""
    return Location(
        uri=client.shown(record["uri"]) + fragment,
        path=path,
        size=0,
        sha256=sha256,
        verified_by=VERIFIED_BY,
        version=f"lock_version {record['lock_version']}",
        use=Use.RECORD,
    )


def _version(version: Record) -> str:
    """Return the digest of what counts in a file version on the digital object."""
    return records.digest([version["file_uri"], version.get("use_statement"), bool(version.get("publish"))])


# -- verify ----------------------------------------------------------------------------------


async def verify(ctx: VerifyContext, client: ArchivesSpaceClient) -> None:
    """Compare each recorded location with what is there now, and report it."""
    locations = ctx.locations()
    while some := _lot(locations):
        if ctx.stopped.is_set():
            return
        try:
            there = await _read(client, some)
        except StepError as error:
            for location in some:
                ctx.report(False, location.uri, f"cannot be checked: {error}")
            continue
        whole = await _sees_all(client)
        for location in some:
            problem = _problem(location, there.get(_uri(client, location)))
            if problem == _GONE and not whole:
                problem = "is gone, or suppressed: the user is not shown what is (view_suppressed)"
            ctx.report(not problem, location.uri, problem)


async def _sees_all(client: ArchivesSpaceClient) -> bool:
    try:
        return await client.see_all(may_set=False)
    except StepError:
        return False


def _lot(locations: Iterator[Location]) -> list[Location]:
    found = []
    for location in locations:
        if location.use == Use.RECORD:
            found.append(location)
            if len(found) == _AT_ONCE:
                break
    return found


def _uri(client: ArchivesSpaceClient, location: Location) -> str:
    return location.uri.removeprefix(client.shown("")).partition("#")[0]


async def _read(client: ArchivesSpaceClient, some: Sequence[Location]) -> dict[str, Record]:
    there: dict[str, Record] = {}
    numbers: dict[str, list[int]] = {}
    for uri in dict.fromkeys(_uri(client, location) for location in some):
        kind = uri.split("/")[-2]
        if kind in ("digital_object_components", "digital_objects"):
            numbers.setdefault(kind, []).append(number_of(uri))
        elif (record := await client.find(uri)) is not None:
            there[uri] = record
    for kind, listed in numbers.items():
        async for record in client.listed(kind, listed):
            there[record["uri"]] = record
    return there


def _problem(location: Location, record: Record | None) -> str:
    """Return what is wrong with a record; "" when it says what was written."""
    if record is None:
        return _GONE
    uri = record["uri"]
    if "/digital_object_components/" in uri:
        same = records.still_says(record, location.sha256)
        return "" if same else "says something else of its files now"
    if "#" in location.uri:
        return _part_problem(location, record)
    if "/archival_objects/" in uri:
        digests = {records.digest([uri, link]) for link in records.linked(record)}
        return "" if location.sha256 in digests else "is no longer linked to the digital object"
    if location.path:  # it stands for a file
        same = records.still_says(_as_component(record), location.sha256)
        return "" if same else "says something else of its file now"
    same = records.digest([record["digital_object_id"]]) == location.sha256
    return "" if same else "has another digital object id now"


def _part_problem(location: Location, record: Record) -> str:
    file_uri = unquote(location.uri.partition("#")[2])
    for version in record.get("file_versions", ()):
        if version.get("file_uri") == file_uri:
            return "" if _version(version) == location.sha256 else "is shown otherwise now"
    return "is no longer among the file versions"
