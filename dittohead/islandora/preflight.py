"""What must hold at a site before anything is written there, for preflight, run and doctor."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any

from dittohead.description import Description
from dittohead.errors import ItemError, StepError, TargetError
from dittohead.islandora.fields import described
from dittohead.islandora.options import ByTitle, IslandoraOptions, use_uri
from dittohead.islandora.site import Drupal, Node
from dittohead.islandora.vocabulary import MODELS
from dittohead.rest import connected

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
class Ground:
    """What is known of a site before anything is written."""

    terms: dict[str, int]  #: tids by external URI
    collection: int  #: nid


@contextlib.asynccontextmanager
async def opened(options: IslandoraOptions, password: str) -> AsyncIterator[Drupal]:
    """Open a session with the site."""
    async with connected(options, (options.user, password), connections=options.parallel) as rest:
        yield Drupal(rest)


def wanted_terms(options: IslandoraOptions) -> list[str]:
    """Return the URIs of all terms that a step may need."""
    uses = [uri for _, uri in options.uses()]
    if options.wait_for == "thumbnail":
        uses.append(use_uri("thumbnail"))
    return list(dict.fromkeys([*(MODELS[model] for model in _MODELS[options.model]), *uses]))


async def ground(site: Drupal, options: IslandoraOptions) -> Ground:
    """Find out what must be known. Raises: StepError."""
    terms = await site.needed(wanted_terms(options))
    await site.filters(options.find, _IDENTIFIER)
    return Ground(terms=terms, collection=await collection(site, options))


async def collection(site: Drupal, options: IslandoraOptions) -> int:
    """Return the collection's nid. Raises: ItemError: there is none, or several."""
    given = options.collection
    if isinstance(given, ByTitle):
        nids = await site.find(given.find, "title", given.title)
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
    """Return the nodes with exactly this local identifier, whatever else the View finds."""
    nids = await site.find(options.find, _IDENTIFIER, identifier)
    if len(nids) > _LIKELY:  # "contains" would find every page of every object in a collection
        raise TargetError(
            f'the View at {options.find} finds {len(nids)} nodes by "{identifier}"',
            where=site.rest.base,
            hint='Let its filter use the operator "Is equal to"',
        )
    nodes = await _nodes(site, nids)
    return [node for node in nodes if identifier in node.identifiers]


async def _nodes(site: Drupal, nids: Iterable[int]) -> list[Node]:
    found = [await site.node(nid) for nid in nids]
    return [node for node in found if node is not None]


async def members(site: Drupal, options: IslandoraOptions, nid: int) -> list[Node]:
    """Return the nodes that are members of a node, by the View for it."""
    listed = await _nodes(site, await site.find(options.members, _MEMBER_OF, str(nid)))
    return [node for node in listed if nid in node.member_of]


async def existing(
    site: Drupal, options: IslandoraOptions, found: Description, base: Ground, *, paged: bool | None
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


async def check_fields(site: Drupal, options: IslandoraOptions, descriptions: Iterable[Description]) -> None:
    """Compare what would be written with the site's fields, where the site lets them be read.

    Raises: ItemError: a value is longer than its field; TargetError: a field is missing.
    """
    needed = _NEEDED if options.model == "image" else _NEEDED + _NEEDED_BY_PAGES
    values: dict[str, int] = dict.fromkeys(needed, 0)
    for found in descriptions:
        for name, items in described(found, options.leave_out).items():
            longest = max(len(str(item.get("value", ""))) for item in items)
            values[name] = max(values.get(name, 0), longest)
    for name, longest in values.items():
        if name != "title":
            await _check_field(site, options, name, longest)


async def _check_field(site: Drupal, options: IslandoraOptions, name: str, longest: int) -> None:
    config = f"node.{options.content_type}.{name}"
    answer = await site.rest.send("GET", f"/entity/field_config/{config}", params={"_format": "json"})
    if answer.status != 200:
        if answer.status == 404 and await _readable(site, options):
            raise TargetError(
                f"the content type {options.content_type} has no {name}",
                where=site.rest.base,
                hint="Add the field there" + ("" if longest == 0 else f", or set leave_out: [{name}]"),
            )
        return
    storage = await site.rest.send(
        "GET", f"/entity/field_storage_config/node.{name}", params={"_format": "json"}
    )
    if storage.status != 200:
        return
    settings: dict[str, Any] = storage.json().get("settings") or {}
    most = settings.get("max_length")
    if isinstance(most, int) and longest > most:
        raise ItemError(
            f"{name} takes {most} characters there, and {longest} are to be written", where=site.rest.base
        )


async def _readable(site: Drupal, options: IslandoraOptions) -> bool:
    """Tell whether field configuration can be read at all: 404 means nothing where it cannot."""
    config = f"node.{options.content_type}.field_model"
    answer = await site.rest.send("GET", f"/entity/field_config/{config}", params={"_format": "json"})
    return answer.status == 200


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
    views = [(options.find, _IDENTIFIER)] + ([(options.members, _MEMBER_OF)] if options.members else [])
    for view, by in views:
        try:
            if by == _IDENTIFIER:
                await site.filters(view, by)
            elif await site.find(view, by, "0"):
                raise TargetError(f"the View at {view} lists members of no node", hint=f"Expose {by} there")
            yield True, f"{options.url}{view} filters by {by}"
        except StepError as error:
            yield False, str(error)
    async for said in _examined_collection(site, options):
        yield said


async def _examined_collection(site: Drupal, options: IslandoraOptions) -> AsyncIterator[tuple[bool, str]]:
    given = options.collection if isinstance(options.collection, str) else options.collection.title
    if "{" in given:  # another for each folder
        return
    try:
        nid = await collection(site, options)
        yield True, f"{options.url}/node/{nid} is the collection"
        await site.media_of(nid)
        yield True, f"{options.url}: media of a node can be listed"
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
