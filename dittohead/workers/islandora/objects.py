"""Which files are which object's pages, in which order, and what else belongs to each page."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dittohead.contract.worker import Inputs, Made, StepContext
from dittohead.model.description import Described, Description
from dittohead.model.errors import ItemError
from dittohead.model.records import Entry
from dittohead.model.text import display
from dittohead.system.threads import Stop
from dittohead.toolkit import natural_order
from dittohead.toolkit.provenance import origins
from dittohead.workers.islandora.options import IslandoraOptions
from dittohead.workers.islandora.vocabulary import IMAGES, bundle_of, extension

#: What UUIDs of nodes are made from: the same object has the same at each try and in each job.
_SPACE = uuid.UUID("3d0f6f6c-65a7-5b8e-9a8a-8c1b0a5b6f0e")

#: Files named in a reason; the rest is counted.
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class MediaFile:
    """One file that becomes a media."""

    root: Path
    entry: Entry
    use: str  #: URI
    bundle: str

    @property
    def name(self) -> str:
        """Its file name, for people."""
        return display(self.entry.path).rpartition("/")[2]


@dataclass(frozen=True, kw_only=True)
class ObjectPage:
    """One image of an object, with all that is sent of it."""

    stem: str  #: its path without extension
    weight: int  #: 1 for the first
    identifier: str
    parts: Sequence[MediaFile]
    empty: Sequence[str] = ()  #: names of files of it that hold nothing, which no site takes


@dataclass(frozen=True, kw_only=True)
class SiteObject:
    """An object: the node it becomes, and its pages."""

    description: Description
    paged: bool  #: whether each page has a node of its own
    pages: Sequence[ObjectPage]

    @property
    def first(self) -> bytes:
        """The path of its first page's own file."""
        return self.pages[0].parts[0].entry.path


@dataclass
class _Gathered:
    """What is found of one page while files are read through."""

    stem: str
    main: MediaFile
    origin: bytes = b""  #: the folder's own file that the main one goes back to
    more: list[MediaFile] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)  #: names of its files that hold nothing


def node_uuid(site: str, key: str) -> str:
    """Return the UUID that a node of this site is created under.

    The same each time: the database refuses to create a node a second time, whatever a View that lags says.
    """
    return str(uuid.uuid5(_SPACE, f"{site}\n{key}"))


def things(ctx: StepContext, options: IslandoraOptions, stop: Stop) -> list[SiteObject]:
    """Return the folder's objects with their pages, from what the step takes. Blocking.

    Args:
        ctx: gives the files and what is known of the objects.
        stop: checked for each file.

    Raises: ItemError: a file is not a page, belongs to no object or no page, or two are of one page.
    """
    pages = _gather(ctx, options, stop)
    known = _Known(ctx.described(options.record))
    grouped: dict[str, list[_Gathered]] = {}
    descriptions: dict[str, Description] = {}
    lost = []
    for page in pages:
        found = known.of(page.stem)
        if found is None:
            lost.append(page.stem)
            continue
        descriptions[found.identifier] = found
        grouped.setdefault(found.identifier, []).append(page)
    if lost:
        raise ItemError(f"{_named(lost)} of no object that is described")
    if not grouped:
        raise ItemError("there is no image to make a page of", hint="Is `from` the step that was meant?")
    return [_thing(descriptions[key], group, options) for key, group in grouped.items()]


class _Known:
    """Whose a page is, by the page's stem."""

    def __init__(self, described: Described) -> None:
        self._stems: dict[str, Description] = {}
        self._rest: Description | None = None
        for candidate in described.objects:
            if candidate.files is None:
                self._rest = self._rest or candidate.description
            for name in candidate.files or ():
                stem = _stem(display(name.encode("utf-8", "surrogateescape")))
                self._stems.setdefault(stem, candidate.description)

    def of(self, stem: str) -> Description | None:
        """Return the description of the object that a page belongs to, None when to none."""
        return self._stems.get(stem, self._rest)


def _thing(description: Description, group: list[_Gathered], options: IslandoraOptions) -> SiteObject:
    group.sort(key=lambda page: natural_order.page_key(page.main.entry.path, page.origin))
    if options.model == "image" and len(group) > 1:
        raise ItemError(f"{description.identifier} has {len(group)} images, and model is image")
    paged = options.model == "paged" or len(group) > 1
    pages = [
        ObjectPage(
            stem=page.stem,
            weight=weight,
            identifier=_identifier(description.identifier, page.stem) if paged else description.identifier,
            parts=[page.main, *page.more],
            empty=tuple(page.empty),
        )
        for weight, page in enumerate(group, 1)
    ]
    same = {page.identifier for page in pages}
    if paged and (len(same) < len(pages) or description.identifier in same):
        raise ItemError(f"two pages of {description.identifier} would have the same local identifier")
    return SiteObject(description=description, paged=paged, pages=pages)


def _identifier(whole: str, stem: str) -> str:
    """Return a page's local identifier: its file's name where that begins with its object's."""
    name = stem.rpartition("/")[2]
    found = name if name.startswith(whole) and name != whole and "/" not in stem else f"{whole}_{stem}"
    if len(found) > 255:
        raise ItemError(f"the local identifier of a page has more than 255 characters: {found[:60]}...")
    return found


def _gather(ctx: StepContext, options: IslandoraOptions, stop: Stop) -> list[_Gathered]:
    main, *others = options.uses()
    pages: dict[str, _Gathered] = {}
    strange, empty = [], []
    back = _origins(ctx, stop)
    for entry in _files(ctx.source):
        stem = _stem(display(entry.path))
        if entry.size == 0:
            empty.append(display(entry.path))
        if extension(display(entry.path)) not in IMAGES:
            strange.append(display(entry.path))
        elif stem in pages:
            raise ItemError(f"two files would be the page {stem}")
        else:
            part = _part(ctx.source.root, entry, main[1], options)
            pages[stem] = _Gathered(stem, part, back.get(entry.path, b""))
    if empty:
        raise ItemError(f"{_named(empty)} empty", hint="The site takes no file without a byte")
    if strange:
        what = "not an image" if len(strange) == 1 else "not images"
        raise ItemError(f"{_named(strange)} {what}", hint="Let a step before make images of them")
    for where, use in others:
        _add(pages, where, use, ctx, options)
    return list(pages.values())


def _origins(ctx: StepContext, stop: Stop) -> dict[bytes, bytes]:
    """Return {what the step takes: the folder's own file it goes back to}; {} where it takes the folder."""
    made = ctx.source.made
    if made is None:
        return {}
    before = origins(ctx, made, stop)
    return {output.path: before.get(output.source, output.source) for output in made.outputs()}


def _add(
    pages: dict[str, _Gathered], where: str, use: str, ctx: StepContext, options: IslandoraOptions
) -> None:
    lost = []
    for root, entry, stems in _more(where, ctx):
        page = next((pages[stem] for stem in stems if stem in pages), None)
        if page is None:
            lost.append(display(entry.path))
        elif entry.size == 0:
            page.empty.append(display(entry.path))
        elif any(part.use == use for part in page.more):
            raise ItemError(f"two files would be the page {page.stem}'s {use}", where=display(entry.path))
        else:
            page.more.append(_part(root, entry, use, options))
    if lost:
        raise ItemError(f"{_named(lost)} of no page")


def _more(where: str, ctx: StepContext) -> Iterable[tuple[Path, Entry, list[str]]]:
    """Yield the files of an option with the stems of the pages they may belong to."""
    if where == "originals":
        for entry in _files(ctx.originals):
            if extension(display(entry.path)) in IMAGES:
                yield ctx.originals.root, entry, [_stem(display(entry.path))]
        return
    made: Made | None = ctx.made_by(where.partition(":")[2])
    for output in made.outputs() if made is not None else ():
        entry = Entry(path=output.path, size=output.size, sha256=output.sha256)
        assert made is not None  # noqa: S101
        yield made.root, entry, [_stem(display(output.path)), _stem(display(output.source))]


def _part(root: Path, entry: Entry, use: str, options: IslandoraOptions) -> MediaFile:
    bundle = bundle_of(display(entry.path), use, options.bundles)
    return MediaFile(root=root, entry=entry, use=use, bundle=bundle)


def _files(inputs: Inputs) -> Iterable[Entry]:
    return (entry for entry in inputs.entries() if not entry.is_dir)


def _stem(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    stem, dot, _ = name.rpartition(".")
    return folder + slash + (stem if dot and stem else name)


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{shown}{more} {'is' if len(names) == 1 else 'are'}"
