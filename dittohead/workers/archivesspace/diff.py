"""What ArchivesSpace is to hold of an object, what it holds, and the difference."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dittohead.contract.worker import StepContext
from dittohead.model.errors import ItemError
from dittohead.model.records import Entry, Use
from dittohead.model.text import display
from dittohead.toolkit import natural_order
from dittohead.workers.archivesspace import records
from dittohead.workers.archivesspace.client import ArchivesSpaceClient
from dittohead.workers.archivesspace.component_names import Naming, text_of
from dittohead.workers.archivesspace.delivered import DeliveredChain, DeliveredCopy, PublishedFile
from dittohead.workers.archivesspace.options import ArchivesSpaceOptions
from dittohead.workers.archivesspace.preflight import FoundObject
from dittohead.workers.archivesspace.records import Enumerations, Record

#: In the order that the public interface wants: a picture, and what a click on it opens. Without a page the
#: manifest stands before it: a click would open it, and shows JSON. Source: representative_file_version.rb.
_ORDER = (Use.THUMBNAIL, Use.PAGE, Use.MANIFEST)
_ORDER_WITHOUT_PAGE = (Use.MANIFEST, Use.THUMBNAIL)


@dataclass(frozen=True, kw_only=True, slots=True)
class ComponentFile:
    """One file that is to have a component."""

    path: bytes
    component_id: str
    label: str
    copies: tuple[DeliveredCopy, ...]
    former_id: str = ""  #: what an earlier version would have called it


@dataclass(kw_only=True)
class WantedRecord:
    """What is to be recorded for one archival object."""

    found: FoundObject
    pages: list[ComponentFile] = field(default_factory=list)  #: in their order
    shown: list[PublishedFile] = field(default_factory=list)  #: thumbnail, page, manifest
    types: set[str] = field(default_factory=set)  #: what the endings of its files say
    left: int = 0  #: files that were to be recorded and of which no copy was delivered

    @property
    def roles(self) -> dict[str, str]:
        """What each access URI is, as the intent log keeps it."""
        return {one.uri: str(one.use) for one in self.shown}

    def type(self, options: ArchivesSpaceOptions, known: Enumerations) -> str:
        """Return the digital object's type; "" where the site's list has not what it would be."""
        type_ = options.digital_object_type or records.type_of(self.types)
        return type_ if type_ in known.get(records.TYPE, frozenset()) else ""

    def access(self, options: ArchivesSpaceOptions, known: Enumerations) -> list[Record]:
        """Return the digital object's file versions."""
        type_ = self.type(options, known)
        title = self.found.title
        return [records.access_version(one.use, one.uri, title, type_, known) for one in self.shown]

    def versions(
        self, page: ComponentFile, options: ArchivesSpaceOptions, known: Enumerations
    ) -> list[Record]:
        """Return the file versions of a component, one for each place where its file lies.

        Args:
            page: the file, and where its copies were delivered to.
            known: the controlled values that the site has, by enumeration.
        """
        return [
            records.master_version(
                uri=copy.uri,
                path=copy.path,
                size=copy.size,
                sha256=copy.sha256,
                caption=copy.caption,
                use=options.use_statement,
                formats=options.formats,
                known=known,
            )
            for copy in page.copies
        ]

    def masters(self, options: ArchivesSpaceOptions, known: Enumerations) -> list[Record]:
        """Return the digital object's own file versions of masters, which has no components then."""
        if not self.found.each:
            return []
        return [one for page in self.pages for one in self.versions(page, options, known)]

    def component(self, page: ComponentFile, options: ArchivesSpaceOptions, known: Enumerations) -> Record:
        """Return a new component for a page.

        Args:
            page: the file, and where its copies were delivered to.
            known: the controlled values that the site has, by enumeration.
        """
        return records.component(page.component_id, page.label, self.versions(page, options, known))


def wanted(
    ctx: StepContext, options: ArchivesSpaceOptions, found: Sequence[FoundObject]
) -> list[WantedRecord]:
    """Return what is to be recorded, one for each object in the order of `found`. Blocking.

    Args:
        ctx: gives the folder's files, and where other steps have delivered them.
        found: what preflight found of each object.

    Raises: ItemError: something belongs to no object.
    """
    naming, chain = Naming(options, ctx.name), DeliveredChain(ctx)
    result = [WantedRecord(found=one) for one in found]
    owners = {name: one for one in result for name in one.found.files or ()}

    def owner(path: bytes) -> WantedRecord | None:
        return result[0] if result[0].found.files is None else owners.get(text_of(path))

    copies: dict[bytes, list[DeliveredCopy]] = {}
    for step in options.masters:
        for path, copy in chain.copies(step):
            copies.setdefault(path, []).append(copy)
    for entry in ctx.originals.entries():
        of = owner(entry.path)
        if of is None or not naming.recorded(entry):
            continue
        of.types.add(records.kind_of(entry.path).type)
        if entry.path in copies:
            of.pages.append(_page(naming, entry, of.found.identifier, copies[entry.path]))
        else:
            of.left += 1
    for one in result:
        one.pages.sort(key=lambda page: natural_order.key(page.path))
    _show(options, chain, result, owner)
    if options.digital_objects == "each":  # one of which nothing is known yet is not made
        left = sum(one.left for one in result)
        result = [one for one in result if one.pages or one.shown]
        if result:
            result[0].left = left
    return result


def see_something(ctx: StepContext, options: ArchivesSpaceOptions) -> None:
    """See that each step that is named has something to be recorded. Blocking. Raises: ItemError."""
    chain = DeliveredChain(ctx)
    for step in options.masters:
        if ctx.made_by(step) is not None and next(chain.copies(step), None) is None:
            raise _nothing(step, "masters", "has delivered no file of this folder", "delivered the masters")
    for step in options.access:
        if ctx.made_by(step) is not None and next(chain.shown(step), None) is None:
            raise _nothing(step, "access", "has no page, thumbnail or manifest", "made the page")


def _nothing(step: str, option: str, what: str, wanted: str) -> ItemError:
    return ItemError(
        f'the step "{step}", named by {option}:, {what}: nothing could be recorded of it',
        hint=f"Name the step that has {wanted}, then run the folder again with dittohead rerun",
    )


def _page(naming: Naming, entry: Entry, identifier: str, copies: Iterable[DeliveredCopy]) -> ComponentFile:
    by_uri = {copy.uri: copy for copy in copies}
    for uri in by_uri:
        if strange := records.beyond(uri):
            raise ItemError(
                f"ArchivesSpace's database cannot hold {strange}",
                where=uri[:100],
                hint="Rename the file, or keep its name out of where it is delivered to",
            )
        if len(uri) > records.LONGEST_URI:
            raise ItemError(f"its place is longer than {records.LONGEST_URI} characters", where=uri[:100])
    return ComponentFile(
        path=entry.path,
        component_id=naming.component_id(entry, identifier),
        label=naming.label(entry, identifier),
        copies=tuple(by_uri.values()),
        former_id=naming.former_id(entry),
    )


def _show(
    options: ArchivesSpaceOptions,
    chain: DeliveredChain,
    result: list[WantedRecord],
    owner: Callable[[bytes], WantedRecord | None],
) -> None:
    """Give each object its thumbnail, page and manifest: the object's own before those of a file."""
    by_name: dict[str, WantedRecord] = {}
    for one in result:  # of several for one archival object the first
        by_name.setdefault(one.found.identifier, one)
        by_name.setdefault(one.found.uri, one)
    alone = len({one.found.uri for one in result}) == 1
    for step in options.access:
        for shown in chain.shown(step):
            of = by_name.get(shown.known_as)
            if of is None and shown.origin is not None:
                of = owner(shown.origin)
            if of is None and alone:
                of = result[0]
            if of is None:
                raise ItemError(
                    f'"{step}" does not say to which of the {len(result)} objects this {shown.use} belongs',
                    where=shown.uri,
                    hint="Use a folder for each object, or leave that step out of access:",
                )
            of.shown.append(shown)
    for one in result:
        best: dict[Use, PublishedFile] = {}
        for shown in sorted(one.shown, key=lambda shown: natural_order.key(shown.origin or b"")):
            best.setdefault(shown.use, shown)
        order = _ORDER if Use.PAGE in best else _ORDER_WITHOUT_PAGE
        one.shown = [best[use] for use in order if use in best]


@dataclass(kw_only=True)
class RecordBefore:
    """What all jobs have recorded of some objects, by their intent logs."""

    access: dict[str, dict[str, str]] = field(default_factory=dict)  #: by digital object id: URIs, as what
    components: dict[str, set[str]] = field(default_factory=dict)  #: by the digital object's uri: their ids


# -- what is there ---------------------------------------------------------------------------


@dataclass(kw_only=True)
class ComponentDifference:
    """What the components of a digital object lack."""

    missing: list[tuple[ComponentFile, int | None]] = field(
        default_factory=list
    )  #: and where; None: at the end
    differing: list[tuple[ComponentFile, str]] = field(default_factory=list)  #: and the component's uri
    same: list[tuple[ComponentFile, Record]] = field(
        default_factory=list
    )  #: and uri, lock_version and fixity


async def compare(
    client: ArchivesSpaceClient,
    options: ArchivesSpaceOptions,
    known: Enumerations,
    of: WantedRecord,
    digital_object: str,
    former: Collection[str] = (),
) -> ComponentDifference:
    """Compare the components that are there with those that should be.

    Keeps little of each, so that ten thousand pages need little memory. A page that is there as an
    earlier version called it stays so, in `of` too.

    Args:
        former: ids that we have given to components of this digital object.
    """
    by_id = {page.component_id: page for page in of.pages}
    by_former = {page.former_id: page for page in of.pages if page.former_id and page.former_id not in by_id}
    found = ComponentDifference()
    order: list[str] = []
    there: set[str] = set()
    renamed: dict[str, ComponentFile] = {}
    if digital_object:
        async for record in client.components(digital_object):
            id_ = record.get("component_id") or ""
            page = by_id.get(id_)
            early = by_former.get(id_)
            if early is not None and early.component_id not in there and _is(record, early, former):
                page = by_id[id_] = replace(early, component_id=id_, former_id="")
                renamed[early.component_id] = page
                by_id.pop(early.component_id, None)
                by_former.pop(id_)
            if not record.get("parent"):
                order.append(id_)
            if page is None or id_ in there:
                continue
            there.add(id_)
            if with_masters(record.get("file_versions", []), of.versions(page, options, known)) is None:
                kept = {name: record.get(name) for name in ("uri", "lock_version")}
                found.same.append((page, kept | {"fixity": records.fixity(record)}))
            else:
                found.differing.append((page, record["uri"]))
    of.pages[:] = [renamed.get(page.component_id, page) for page in of.pages]
    places = positions(order, [page.component_id for page in of.pages], there)
    found.missing = [(page, places[page.component_id]) for page in of.pages if page.component_id in places]
    return found


def _is(record: Record, page: ComponentFile, former: Collection[str]) -> bool:
    """Tell whether a component of a page's former id is that page's: we gave it, or it holds its copy."""
    uris = {copy.uri for copy in page.copies}
    held = {version.get("file_uri") for version in record.get("file_versions", ())}
    return page.former_id in former or not uris.isdisjoint(held)


def positions(
    order: Sequence[str], wanted_ids: Sequence[str], there: Collection[str]
) -> dict[str, int | None]:
    """Return where each missing component goes, if they are created one after the other in their order.

    After the one that comes before it, where that is there; before the one that comes after it, where
    only that is; at the end (None) otherwise.

    Args:
        order: ids of the components that are there at the top, in their order.
        there: ids that are there at all.
    """
    at = {id_: index for index, id_ in enumerate(order)}
    firsts = [at[id_] for id_ in wanted_ids if id_ in at]
    anchor = firsts[0] - 1 if firsts else len(order) - 1
    anchors: list[int] = []
    result: dict[str, int | None] = {}
    for id_ in wanted_ids:
        if id_ in at:
            anchor = at[id_]
        elif id_ not in there:
            place = anchor + 1 + bisect_right(anchors, anchor)
            result[id_] = None if anchor == len(order) - 1 else place
            insort(anchors, anchor)
    return result


# -- what a list of file versions becomes ----------------------------------------------------


def with_masters(old: list[Record], new: list[Record]) -> list[Record] | None:
    """Return a component's file versions with the masters' brought up; None when nothing changes."""
    result = list(old)
    for version in new:
        at = next((i for i, one in enumerate(result) if one.get("file_uri") == version["file_uri"]), None)
        if at is None:
            result.append(version)
        else:
            result[at] = records.brought_up(result[at], version)
    return _if_changed(old, result)


def with_access(old: list[Record], new: list[Record], ours: Collection[str]) -> list[Record] | None:
    """Return a digital object's file versions with the access ones; None when nothing changes.

    They stand together in their order, in the place of the first that is there, otherwise at the head. One
    that others made representative stays so: only one may be.

    Args:
        ours: URIs that we have recorded earlier, which go when they are not among the new.
    """
    by_uri = {version["file_uri"]: version for version in new}
    taken: dict[str, Record] = {}
    others: list[Record] = []
    place: int | None = None
    for one in old:
        uri = one.get("file_uri", "")
        if uri in by_uri and uri not in taken:
            taken[uri] = one
        elif uri not in ours or uri in by_uri:
            others.append(one)
            continue
        place = len(others) if place is None else place
    theirs = any(one.get("is_representative") for one in others)
    block = []
    for uri, version in by_uri.items():
        fresh = version | {"is_representative": version["is_representative"] and not theirs}
        block.append(records.brought_up(taken[uri], fresh) if uri in taken else fresh)
    place = place or 0
    return _if_changed(old, [*others[:place], *block, *others[place:]])


def with_own(
    of: WantedRecord,
    options: ArchivesSpaceOptions,
    known: Enumerations,
    old: list[Record],
    ours: Collection[str],
) -> list[Record] | None:
    """Return a digital object's file versions with all that it is to have; None when nothing changes.

    Args:
        of: what is to be recorded.
        known: the controlled values that the site has, by enumeration.
        old: the file versions as they are there now, in their order.
        ours: URIs that we recorded earlier, which go when they are not among the new ones.
    """
    access, masters = of.access(options, known), of.masters(options, known)
    shown = with_access(old, access, ours) if access else None
    whole = with_masters(old if shown is None else shown, masters)
    return shown if whole is None else whole


def _if_changed(old: list[Record], new: list[Record]) -> list[Record] | None:
    return None if records.canonical(old) == records.canonical(new) else new


def of_ledger(lines: Iterable[Mapping[str, Any]]) -> RecordBefore:
    """Return what the lines of this and other jobs' intent logs say that we have recorded."""
    before = RecordBefore()
    for line in lines:
        if line.get("access"):
            before.access.setdefault(line["of"], {}).update(line["access"])
        if line.get("what") == "components":
            before.components.setdefault(line["uri"], set()).update(line["contents"])
    return before


def of_mapping(lists: Mapping[str, Sequence[str]]) -> dict[str, frozenset[str]]:
    """Return the site's lists as facts keep them."""
    return {name: frozenset(values) for name, values in lists.items()}


def named(pages: Sequence[ComponentFile]) -> str:
    """Return pages for people: the first and the last."""
    first, last = display(pages[0].path), display(pages[-1].path)
    return first if len(pages) == 1 else f"{first} to {last}"
