"""What must hold at a site before anything is written there, for preflight, run and doctor."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field, replace

from dittohead.model.description import Description
from dittohead.model.errors import ItemError, StepError, TargetError
from dittohead.toolkit.rest import connected
from dittohead.workers.islandora.configuration import Configuration
from dittohead.workers.islandora.fields import Fields, described, long_ones
from dittohead.workers.islandora.options import ByTitle, IslandoraOptions, use_uri
from dittohead.workers.islandora.site import SHOW_ALL, Drupal, Node
from dittohead.workers.islandora.vocabulary import FILE_FIELDS, MODELS

#: Models that a step may need, by its option `model`.
_MODELS = {"auto": ("image", "paged", "page"), "paged": ("paged", "page"), "image": ("image",)}

#: Fields without which there is no object, and no page.
_NEEDED = ("field_model", "field_member_of", "field_local_identifier")
_NEEDED_BY_PAGES = ("field_weight",)

#: Nodes that may be looked at for one identifier.
_LIKELY = 50

_INTEGRATION = "islandora_workbench_integration"

_IDENTIFIER = "field_local_identifier"
_MEMBER_OF = "field_member_of"


@dataclass(frozen=True, kw_only=True)
class SiteFacts:
    """What is known of a site before anything is written."""

    terms: dict[str, int]  #: tids by external URI
    collection: int  #: nid
    stores: dict[str, str] = field(default_factory=dict)  #: schemes of the site's own files, by field
    chosen: str = ""  #: the storage that was told
    configuration: Configuration | None = None

    def storage(self, bundle: str) -> str:
        """Return the URI below which files of a media bundle are put."""
        if self.chosen:
            return self.chosen
        scheme = self.stores.get(FILE_FIELDS.get(bundle, "")) or self.stores.get("field_media_file", "fedora")
        return f"{scheme}://dittohead"


@contextlib.asynccontextmanager
async def opened(options: IslandoraOptions, password: str) -> AsyncIterator[Drupal]:
    """Open a session with the site."""
    async with connected(options, (options.user, password), connections=options.parallel) as rest:
        yield Drupal(rest, lists_all=options.lists_all)


def wanted_terms(options: IslandoraOptions) -> list[str]:
    """Return the URIs of all terms that a step may need."""
    uses = [uri for _, uri in options.uses()]
    if options.wait_for == "thumbnail":
        uses.append(use_uri("thumbnail"))
    return list(dict.fromkeys([*(MODELS[model] for model in _MODELS[options.model]), *uses]))


async def ground(site: Drupal, options: IslandoraOptions) -> SiteFacts:
    """Find out what must be known. Raises: StepError."""
    terms = await site.needed(wanted_terms(options))
    await site.filters(options.find, _IDENTIFIER)
    configuration = Configuration(site, options.content_type)
    return SiteFacts(
        terms=terms,
        collection=await collection(site, options),
        stores=await stores(configuration, options),
        chosen=options.storage,
        configuration=configuration,
    )


async def stores(configuration: Configuration, options: IslandoraOptions) -> dict[str, str]:
    """Return the schemes at which the site keeps files, by field; none where it does not tell.

    Raises: TargetError: `storage` is none of them. Islandora 2.13 answers 201 to a file for a place that is
    not there, and can neither show nor list what it has made of it.
    """
    schemes = await configuration.schemes()
    wanted = options.storage.partition("://")[0]
    if not wanted or not schemes or options.any_storage or wanted in {*schemes.values(), "public"}:
        return schemes
    own = " and ".join(sorted(f"{scheme}://" for scheme in set(schemes.values())))
    raise TargetError(
        f"storage is {options.storage}, and the site keeps its files at {own}",
        where=options.url,
        hint=f"Set storage to {own.partition(' ')[0]}dittohead, or leave it out; if the site has {wanted}:// "
        "too, set any_storage: true",
    )


async def collection(site: Drupal, options: IslandoraOptions) -> int:
    """Return the collection's nid. Raises: ItemError: there is none, or several."""
    given = options.collection
    if isinstance(given, ByTitle):
        nids, whole = await site.find(given.find, "title", given.title)
        if not whole:
            raise _cut(site, given.find, len(nids), f'"{given.title}"')
        nodes = [node for node in await _nodes(site, nids) if node.title == given.title]
        said = f'the title "{given.title}"'
    elif given.startswith("node/") and given[5:].isdigit():
        nodes, said = await _nodes(site, [int(given[5:])]), f"the number {given[5:]}"
    else:
        nodes, said = await by_identifier(site, options, given), f'the local identifier "{given}"'
    if len(nodes) != 1:
        found = "no node" if not nodes else f"nodes {', '.join(str(node.nid) for node in nodes)}"
        raise ItemError(
            f"{found} with {said}, which is to be the collection",
            where=site.rest.base,
            hint="Make the collection there, or correct `collection`",
        )
    return nodes[0].nid


async def by_identifier(site: Drupal, options: IslandoraOptions, identifier: str) -> list[Node]:
    """Return the nodes that have exactly this local identifier; others that the View finds are left out.

    Args:
        identifier: compared whole, upper and lower case apart.

    Raises: TargetError: the View finds too many, or does not list all; TransientError.
    """
    nids, whole = await site.find(options.find, _IDENTIFIER, identifier)
    if len(nids) > _LIKELY:  # "contains" would find every page of every object in a collection
        raise TargetError(
            f'the View at {options.find} finds {len(nids)} nodes by "{identifier}"',
            where=site.rest.base,
            hint='Let its filter use the operator "Is equal to"',
        )
    nodes = await _nodes(site, nids)
    exact = [node for node in nodes if identifier in node.identifiers]
    if not whole and len(exact) < len(nids):
        raise _cut(site, options.find, len(nids), f'"{identifier}"')
    return exact


def _cut(site: Drupal, view: str, shown: int, wanted: str) -> TargetError:
    """Return what is said where a View may have more than it shows."""
    return TargetError(
        f"the View at {view} shows {shown} nodes for {wanted}, whatever page is asked for: "
        "whether these are all cannot be known",
        where=site.rest.base,
        hint=f'Let its filter use the operator "Is equal to". {SHOW_ALL}',
    )


async def _nodes(site: Drupal, nids: Iterable[int]) -> list[Node]:
    found = [await site.node(nid) for nid in nids]
    return [node for node in found if node is not None]


async def members(site: Drupal, options: IslandoraOptions, nid: int) -> tuple[list[Node], bool]:
    """Return (the nodes that are members of a node, whether these are all), by the View for it.

    Args:
        nid: number of the node whose members are searched for.

    Raises: TargetError: there is no such View, or it does not filter; TransientError.
    """
    nids, whole = await site.find(options.members, _MEMBER_OF, str(nid))
    listed = await _nodes(site, nids)
    return [node for node in listed if nid in node.member_of], whole


async def existing(
    site: Drupal, options: IslandoraOptions, found: Description, base: SiteFacts, *, paged: bool | None
) -> Node | None:
    """Return an object's node; None when there is none.

    Args:
        paged: the model it is to have; None while that is not known.

    Raises: ItemError: there are several, or it is in another collection or of another model.
    """
    nodes = await by_identifier(site, options, found.identifier)
    if len(nodes) > 1:
        nids = ", ".join(str(node.nid) for node in nodes)
        raise ItemError(f"nodes {nids} have the local identifier {found.identifier}", where=site.rest.base)
    if not nodes:
        return None
    node = nodes[0]
    where = f"{site.rest.base}/node/{node.nid}"
    if base.collection not in node.member_of:
        others = ", ".join(str(nid) for nid in node.member_of) or "none"
        raise ItemError(
            f"{found.identifier} is there already, but in another collection "
            f"(node {others}, not {base.collection})",
            where=where,
            hint="Correct `collection`, or the node's field_member_of",
        )
    models = {True: ("paged",), False: ("image",), None: ("paged", "image")}[paged]
    if node.model not in [base.terms.get(MODELS[model]) for model in models]:
        raise ItemError(
            f"{found.identifier} is there already, with another model (term {node.model})",
            where=where,
            hint="Set `model` as it is there, or correct the node's field_model",
        )
    return node


async def written(base: SiteFacts, options: IslandoraOptions, found: Description) -> Fields:
    """Return the fields that describe an object; texts are whole where the site's fields take long ones.

    Args:
        base: what is known of the site; without its configuration every field is taken to be short.
        found: the object's description.
    """
    whole = []
    for name in long_ones(found):
        told = await base.configuration.storage(name) if base.configuration is not None else {}
        if told.get("type") in ("text_long", "string_long"):
            whole.append(name)
    return described(found, options.leave_out, whole)


async def check_fields(
    site: Drupal, options: IslandoraOptions, base: SiteFacts, descriptions: Iterable[Description]
) -> None:
    """Compare what would be written with the site's fields, where it tells them.

    Args:
        base: what is known of the site already.
        descriptions: the objects, as they would be described.

    Raises: ItemError: a value is longer than its field; TargetError: a field is missing.
    """
    configuration = base.configuration or Configuration(site, options.content_type)
    base = replace(base, configuration=configuration)
    if not await configuration.told():
        return
    needed = _NEEDED if options.model == "image" else _NEEDED + _NEEDED_BY_PAGES
    values: dict[str, int] = dict.fromkeys(needed, 0)
    for found in descriptions:
        for name, items in (await written(base, options, found)).items():
            if not items:
                continue
            longest = max(len(str(item.get("value", ""))) for item in items)
            values[name] = max(values.get(name, 0), longest)
    for name, longest in values.items():
        if name != "title":
            await _check_field(configuration, options, name, longest)


async def _check_field(
    configuration: Configuration, options: IslandoraOptions, name: str, longest: int
) -> None:
    if await configuration.field(name) is None:
        raise TargetError(
            f"the content type {options.content_type} has no {name}",
            where=options.url,
            hint="Add the field there" + ("" if longest == 0 else f", or set leave_out: [{name}]"),
        )
    most = ((await configuration.storage(name)).get("settings") or {}).get("max_length")
    if isinstance(most, int) and longest > most:
        raise ItemError(
            f"{name} takes {most} characters there, and {longest} are to be written", where=options.url
        )


async def examined(site: Drupal, options: IslandoraOptions) -> AsyncIterator[tuple[bool, str]]:
    """Yield (ok, statement) for each thing that a step needs at a site, going on after what is wrong."""
    for uri in wanted_terms(options):
        try:
            tid = (await site.needed([uri]))[uri]
            yield True, f"{options.url}: term {tid} is {uri}"
        except StepError as error:
            yield False, str(error)
            if isinstance(error, TargetError) and "no term" not in error.what:
                return  # not reached, or refused: the rest would say the same again
    async for said in _examined_views(site, options):
        yield said
    async for said in _examined_collection(site, options):
        yield said
    async for said in _examined_configuration(site, options):
        yield said
    if options.publish is not None:
        needs = "`administer nodes`" + (
            "" if options.publish else ", `bypass node access` (for pages) and `view own unpublished media`"
        )
        yield True, f"publish needs {needs}, which Drupal tells nobody before something is written"


async def _examined_configuration(site: Drupal, options: IslandoraOptions) -> AsyncIterator[tuple[bool, str]]:
    """Say what the site reports about its fields, and whether files have a place there."""
    configuration = Configuration(site, options.content_type)
    if not await configuration.told():
        why = f"{_INTEGRATION} 1.2.0 or newer tells them to who has `use islandora workbench`"
        what = "neither they nor `storage` can be compared before something is written"
        yield False, f"{options.url} does not tell its fields: {what}. {why}"
        return
    try:
        schemes = await stores(configuration, options)
        places = SiteFacts(terms={}, collection=0, stores=schemes, chosen=options.storage)
        yield (
            True,
            f"{options.url}: images go to {places.storage('image')}, others to {places.storage('file')}",
        )
        base = SiteFacts(terms={}, collection=0, configuration=configuration)
        await check_fields(site, options, base, ())
        yield True, f"{options.url}: {options.content_type} has the fields that each node needs"
    except StepError as error:
        yield False, str(error)


async def _examined_views(site: Drupal, options: IslandoraOptions) -> AsyncIterator[tuple[bool, str]]:
    views = [(options.find, _IDENTIFIER)] + ([(options.members, _MEMBER_OF)] if options.members else [])
    for view, by in views:
        try:
            if by == _IDENTIFIER:
                await site.filters(view, by)
            elif (await site.find(view, by, "0"))[0]:
                raise TargetError(f"the View at {view} lists members of no node", hint=f"Expose {by} there")
            yield True, f"{options.url}{view} filters by {by}"
        except StepError as error:
            yield False, str(error)


async def _examined_members(site: Drupal, options: IslandoraOptions, nid: int) -> tuple[bool, str]:
    """Say whether the View of members shows all, by those of the collection."""
    nids, whole = await site.find(options.members, _MEMBER_OF, str(nid))
    if whole:
        return True, f"{options.url}{options.members} shows {len(nids)} members of the collection"
    return False, str(_cut(site, options.members, len(nids), f"node {nid}"))


async def _examined_collection(site: Drupal, options: IslandoraOptions) -> AsyncIterator[tuple[bool, str]]:
    given = options.collection if isinstance(options.collection, str) else options.collection.title
    if "{" in given:  # another for each folder
        return
    try:
        nid = await collection(site, options)
        yield True, f"{options.url}/node/{nid} is the collection"
        if options.members:
            yield await _examined_members(site, options, nid)
        await site.media_of(nid)
        said = "" if options.lists_all else " (a listing of 5, 10... may be cut: see lists_all)"
        yield True, f"{options.url}: media of a node can be listed{said}"
    except StepError as error:
        yield False, f"{error}. The user needs `manage media`, and the View media_of its REST export"
        return
    answer = await site.rest.send(
        "GET",
        "/islandora_workbench_integration/file_hash",
        params={"file_uuid": "none", "algorithm": "sha256"},
    )
    if answer.status == 200:
        yield True, f"{options.url} reports SHA-256 of its files"
    else:
        said = f"{answer.where}: it answered {answer.status}; files are read back instead"
        yield False, f"{said}. Enable {_INTEGRATION} and give the user `use islandora workbench`"
