"""iiif: a IIIF Presentation manifest of the images a step has made, and a page that shows them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shutil
from array import array
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from dittohead.contract import placeholders
from dittohead.contract.worker import Done, Made, Options, Planned, Recipe, StepContext, StepResult, Worker
from dittohead.model.description import Described, Description
from dittohead.model.errors import ItemError
from dittohead.model.events import AGENT, Event, EventType
from dittohead.model.records import Output, Use
from dittohead.model.text import display
from dittohead.system import files
from dittohead.system.threads import Stop, in_thread
from dittohead.toolkit import natural_order
from dittohead.toolkit.images.fit import fitted
from dittohead.toolkit.images.options import ConvertOptions
from dittohead.toolkit.images.process import ImageChild, abilities
from dittohead.toolkit.provenance import origins
from dittohead.toolkit.result_cache import holds, name_digest
from dittohead.toolkit.uris import encoded, is_template
from dittohead.workers.iiif import manifest as iiif_manifest
from dittohead.workers.iiif import page
from dittohead.workers.iiif.manifest import Manner, ShownObject
from dittohead.workers.iiif.pictures import Picture, of_info, served

#: Raised when the same options and images make other files than before.
_VERSION = "2"

#: What cannot stand in the name of an object's folder.
_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")

#: A media type with its parameters (RFC 6838, 4.2); of the types that a manifest's schema lets in.
_FORMAT = re.compile(r"[A-Za-z]+/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]*\s*(;.*)?")

#: BCP 47, as far as a manifest's schema looks.
_LANGUAGE = re.compile(r"none|[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")


def _address(value: str) -> str:
    if not is_template(value):
        raise ValueError(
            "a URL that begins with https:// or http:// and names a host is required, without a user's name"
        )
    return value.strip()


class Provider(BaseModel):
    """The institution that gives the images out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(description="URI that stands for it, such as its address in the web or its ISIL's.")
    name: str = Field("", description="Its name; when left out the publisher the record names.")
    homepage: str = Field("", description="Its page for people; when left out `id`.")
    logo: str = Field("", description="URL of its logo.")

    @field_validator("id")
    @classmethod
    def _uri(cls, value: str) -> str:
        return _address(value)

    @field_validator("homepage", "logo")
    @classmethod
    def _url(cls, value: str) -> str:
        return _address(value) if value else value


class Linked(BaseModel):
    """A document about the object, or another form of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(description="Its URL.")
    label: str = Field("", description="What it is, for people.")
    format: str = Field("", description="Its media type, such as `application/pdf`.")
    type: str = Field("", description="`Dataset`, `Text`, `Image` ...; by default what fits the option.")

    @field_validator("id")
    @classmethod
    def _url(cls, value: str) -> str:
        return _address(value)

    @field_validator("format")
    @classmethod
    def _media_type(cls, value: str) -> str:
        if value and not _FORMAT.fullmatch(value) and "{" not in value:
            raise ValueError("a media type such as application/pdf is required")
        kind, sign, parameters = value.partition(";")
        return kind.strip().lower() + sign + parameters


class IiifOptions(Options):
    """What a iiif step may be told."""

    tiles: str = Field(
        description="The earlier step whose images are shown: one with `format: iiif-static`, or with "
        "`service` any that makes what an image server reads.",
    )
    base: str = Field(
        description="URL of the folder in which the files of this step will be found, such as "
        "`https://iiif.example.org/{name}`."
    )
    record: str = Field(
        "", description="The step that describes the objects; by default the first that does."
    )
    service: str = Field(
        "",
        description="Where an image server gives a file out: the URI of its image service, made from "
        "`{path}`, `{file}`, `{stem}` ..., such as `https://iiif.example.org/iiif/3/{path}`. Slashes in "
        "`{path}` are percent-encoded, as IIIF wants it.",
    )
    service_profile: Literal["level1", "level2"] = Field("level2", description="What that server can do.")
    language: str = Field(
        "none", description="Language of titles and descriptions: `en`, `de-AT`, or `none`."
    )
    behavior: Literal["individuals", "paged", "continuous", "unordered"] = Field(
        "individuals", description="`paged` for a book, whose pages a viewer shows in pairs."
    )
    viewing_direction: Literal["left-to-right", "right-to-left", "top-to-bottom", "bottom-to-top"] = Field(
        "left-to-right", description="The order in which images are read."
    )
    canvas_labels: Literal["number", "name"] = Field(
        "number", description="What images are called: by number, or by their file's name."
    )
    structures: bool = Field(False, description="List sub-folders as ranges, a table of contents.")
    thumbnail: int = Field(200, ge=32, le=2000, description="Pixels of a thumbnail's longer side, at least.")
    provider: Provider | None = Field(None, description="The institution; its keys are below.")
    see_also: list[Linked] = Field(
        default_factory=list, description="Descriptions for machines (METS, MARC ...); keys are below."
    )
    rendering: list[Linked] = Field(
        default_factory=list, description="Other forms of the object for people, such as a PDF."
    )
    page: bool = Field(True, description="Also write `index.html`, which shows the object.")

    @field_validator("base", "service")
    @classmethod
    def _url(cls, value: str, info: ValidationInfo) -> str:
        if not value and info.field_name == "service":
            return value
        if "?" in value or "#" in value:
            raise ValueError("a URL without ? and # is required")
        return _address(value).rstrip("/")

    @field_validator("language")
    @classmethod
    def _tag(cls, value: str) -> str:
        if not _LANGUAGE.fullmatch(value) and "{" not in value:
            raise ValueError("a language such as en or de-AT, or none, is required")
        return value

    @model_validator(mode="after")
    def _each(self) -> IiifOptions:
        if self.service and not re.search(r"\{(path|file|stem|sha256)\}", self.service):
            raise ValueError("service: a URI with {path} in it is required, another for each file")
        return self

    def manner(self) -> Manner:
        """Return how manifests are written. Raises: ItemError: what a placeholder stands for fits in none."""
        if not _LANGUAGE.fullmatch(self.language):
            raise _unfit("language", self.language, "a language such as en or de-AT, or none,")
        for option in ("see_also", "rendering"):
            for number, each in enumerate(getattr(self, option)):
                if each.format and not _FORMAT.fullmatch(each.format):
                    raise _unfit(
                        f"{option}.{number}.format", each.format, "a media type such as application/pdf"
                    )
        return Manner(
            language=self.language,
            behavior=self.behavior,
            viewing_direction=self.viewing_direction,
            canvas_labels=self.canvas_labels,
            structures=self.structures,
            thumbnail=self.thumbnail,
            providers=[self.provider.model_dump()] if self.provider else [],
            see_also=[each.model_dump() for each in self.see_also],
            rendering=[each.model_dump() for each in self.rendering],
        )


def _unfit(option: str, value: str, wanted: str) -> ItemError:
    return ItemError(
        f'"{value}" is filled in, and {wanted} is required',
        where=f"option {option}",
        hint="Change the option, or the name that is filled in there; then run the folder again",
    )


class IiifWorker(Worker[IiifOptions]):
    """Writes a IIIF Presentation 3 manifest of the images a step has made, and a page that shows them."""

    name = "iiif"
    Options = IiifOptions
    makes_outputs = True
    per_file = frozenset({"service"})
    uris = frozenset(
        {
            "base",
            "service",
            "provider.id",
            "provider.homepage",
            "provider.logo",
            "see_also.id",
            "rendering.id",
        }
    )
    takes = frozenset({"tiles"})
    knows = frozenset({"record"})
    space_factor = 0.01

    def check(self, options: IiifOptions) -> list[str]:
        """See that thumbnails can be drawn, where there are no tiles to take them from."""
        if options.service and not abilities():
            return ["the image library is not installed: apt-get install libvips42"]
        return []

    def recipe(self, options: IiifOptions) -> Recipe:
        """Return what decides the files beside the images and what is known of them."""
        left = {"tiles", "record"}
        settings = {key: value for key, value in options.model_dump(mode="json").items() if key not in left}
        return Recipe(settings=settings, tools={"presentation": _VERSION})

    async def run(self, ctx: StepContext, options: IiifOptions) -> StepResult:
        """Write the manifest and the page; of several objects one each, and a collection of them."""
        made = ctx.made_by(options.tiles)
        if made is None:
            raise ItemError(
                f'the step "{options.tiles}" was not chosen for this folder, so there are no images to show',
                hint="Give this step the same for: as that one, then run the folder again",
            )
        presentation = _Presentation(ctx, options, made)
        await in_thread(presentation.survey)
        if options.service:
            await presentation.draw_thumbnails()
        for output in await in_thread(presentation.write):
            ctx.output(output)
        return presentation.result()

    async def plan(self, ctx: StepContext, options: IiifOptions) -> AsyncIterator[Planned]:
        """Yield the files that would be written; how many images they show is not known yet."""
        described = ctx.described(options.record)
        base = encoded(options.base)
        for found, folder in zip(described.objects, folders(described), strict=True):
            names = [("manifest.json", Use.MANIFEST)]
            names += [("thumbnail.jpg", Use.THUMBNAIL)]
            names += [("index.html", Use.PAGE)] if options.page else []
            for name, use in names:
                detail = {**_about(found.description.identifier, found.description.ref), "use": use.value}
                uri = f"{base}/{folder}{name}"
                output = Output(
                    path=f"{folder}{name}".encode(), size=0, sha256="", detail={**detail, "uri": uri}
                )
                ctx.output(output)
                yield Planned(action="make", what=f"{folder}{name}", where=uri)
        if len(described.objects) > 1:
            yield Planned(action="make", what="collection.json", where=f"{base}/collection.json")


def folders(described: Described) -> list[str]:
    """Return each object's folder among the files, with a slash at its end; "" when there is one object.

    A folder is named like the object; where that is not a name for a folder, or not the only one, a
    digest of the identifier tells them apart.
    """
    if len(described.objects) == 1:
        return [""]
    found: list[str] = []
    taken: set[str] = set()
    for each in described.objects:
        identifier = each.description.identifier
        name = _UNFIT.sub("_", identifier).strip(".")[:100]
        if name != identifier or name.lower() in taken:
            mark = hashlib.sha256(f"{identifier}\0{each.description.ref}".encode("utf-8", "replace"))
            name = f"{name}~{mark.hexdigest()[:12]}".removeprefix("~")
        if name.lower() in taken:
            raise ItemError(
                f"two objects have the same identifier: {identifier}",
                hint="Give each its own in the system that describes them, then run the folder again",
            )
        taken.add(name.lower())
        found.append(f"{name}/")
    return found


class _Presentation:
    """One try of one iiif step. Blocking, but for `result`."""

    def __init__(self, ctx: StepContext, options: IiifOptions, made: Made) -> None:
        self.ctx, self.options, self.made = ctx, options, made
        self.base = encoded(options.base)
        self.manner = options.manner()
        self.images = self.objects = self.ignored = self.empty = self.unpublished = 0
        self._back: Mapping[bytes, bytes] = {}
        self._digests: dict[bytes, str] = {}  #: of the files that an image server gives out
        self._shown: list[ShownObject] = []

    def survey(self, stop: Stop) -> None:
        """Find the images and whose each is; remove what an earlier try left. Raises: ItemError."""
        for path in self.ctx.work.iterdir():  # its images may have been others
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        pictures = sorted(self._pictures(stop), key=lambda one: natural_order.page_key(one.path, one.origin))
        self.images = len(pictures)
        if not pictures:
            raise ItemError(
                f'the step "{self.options.tiles}" has made no images that can be shown',
                hint="It should be a convert step with format: iiif-static; others need service:",
            )
        described = self.ctx.described(self.options.record)
        own, self.ignored = iiif_manifest.shares(described, pictures)
        if self.ignored == len(pictures):
            raise ItemError(
                f"none of the {len(pictures)} images belongs to an object that is described",
                hint="See which files the step that describes names for each object",
            )
        for each, mine, folder in zip(described.objects, own, folders(described), strict=True):
            if mine:
                (self.ctx.work / folder).mkdir(exist_ok=True)
                self._shown.append(self._as_shown(each.description, mine, folder))
        self.objects, self.empty = len(self._shown), len(described.objects) - len(self._shown)
        self.unpublished = sum(shown.description.published is False for shown in self._shown)

    def _as_shown(self, description: Description, pictures: list[Picture], folder: str) -> ShownObject:
        base = f"{self.base}/{folder}".rstrip("/")
        first = pictures[0]
        size = first.nearest(self.manner.thumbnail) or (first.width, first.height)
        if self.options.service:  # drawn for it; see `draw_thumbnails`
            most = self.manner.thumbnail
            size = fitted(first.width, first.height, (most, most))
        return ShownObject(
            description=description,
            pictures=pictures,
            base=base,
            folder=folder,
            thumbnail=(f"{base}/thumbnail.jpg", *size),
            page=f"{base}/index.html" if self.options.page else "",
            part_of=f"{self.base}/collection.json" if folder else "",
        )

    async def draw_thumbnails(self) -> None:
        """Have a child draw each object's thumbnail of its first image. Raises: ItemError."""
        scratch = self.ctx.work.parent / f"{self.ctx.step}.scratch"
        most = self.manner.thumbnail
        how = ConvertOptions.model_validate(
            {"format": "jpeg", "colour": "srgb", "max_width": most, "max_height": most}
        )
        await asyncio.to_thread(scratch.mkdir, exist_ok=True)
        try:
            async with ImageChild.start(self.ctx, how, scratch) as child:
                for shown in self._shown:
                    first = shown.pictures[0]
                    request = {
                        "root": os.fsdecode(self.made.root),
                        "path": os.fsdecode(first.path),
                        "sha256": self._digests[first.path],
                        "temp": str(scratch / "thumbnail"),
                        "work": str(self.ctx.work),
                        "out": f"{shown.folder}thumbnail.jpg",
                        "recipe": how.child_recipe(),
                    }
                    answer = await child.ask(request, how.timeout)
                    if answer is None:
                        child.must_not_be_killed(display(first.path))
                    if answer is None or not answer["ok"]:
                        why = child.epitaph(how) if answer is None else answer["what"]
                        raise ItemError(f"no thumbnail can be made of it: {why}", where=display(first.path))
        finally:
            await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)

    def write(self, stop: Stop) -> list[Output]:
        """Write all files; return them."""
        outputs: list[Output] = []
        for shown in self._shown:
            stop.check()
            self._object(shown, outputs)
        if any(shown.folder for shown in self._shown):
            self._collection(self._shown, outputs)
        files.sync_filesystem(self.ctx.work)
        return outputs

    # -- which images ------------------------------------------------------------------------

    def _pictures(self, stop: Stop) -> Iterator[Picture]:
        self._back = origins(self.ctx, self.made, stop)
        if not self.options.service:
            yield from self._static(stop)
            return
        for output in self.made.outputs():
            stop.check()
            width, height = output.detail.get("width"), output.detail.get("height")
            if isinstance(width, int) and isinstance(height, int) and "tiles" not in output.detail:
                origin = self._origin(output)
                self._digests[output.path] = output.sha256
                uri = placeholders.fill(self.options.service, _values(output))
                yield served(uri, self.options.service_profile, (width, height), output.path, origin)

    def _origin(self, output: Output) -> bytes:
        return self._back.get(output.source, output.source)

    def _static(self, stop: Stop) -> Iterator[Picture]:
        """Yield the image of each info.json, once all the files it needs are seen to be there."""
        infos: list[Output] = []
        there = array("Q")
        for output in self.made.outputs():
            stop.check()
            there.append(name_digest(output.path))
            if output.path.endswith(b"/info.json"):
                infos.append(output)
        there = array("Q", sorted(there))
        for output in infos:
            stop.check()
            yield self._of_info(output, there)

    def _of_info(self, output: Output, there: array[int]) -> Picture:
        folder = output.path.removesuffix(b"/info.json")
        try:
            with (
                files.opened_beneath(self.made.root, output.path) as fd,
                open(fd, "rb", closefd=False) as file,
            ):
                picture = of_info(json.loads(file.read()), folder, self._origin(output))
        except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
            raise ItemError("this is not readable image information", where=display(output.path)) from error
        for size in (None, *picture.sizes):
            wanted = folder + picture.at(size).removeprefix(picture.uri).encode()
            if not holds(there, name_digest(wanted)):
                raise ItemError("a size that info.json promises is not there", where=display(wanted))
        return picture

    # -- files -------------------------------------------------------------------------------

    def _object(self, shown: ShownObject, outputs: list[Output]) -> None:
        """Write one object's files."""
        about = {**_about(shown.description.identifier, shown.description.ref), "images": len(shown.pictures)}
        assert shown.thumbnail is not None  # noqa: S101
        _, width, height = shown.thumbnail
        size = {**about, "width": width, "height": height}
        outputs.append(
            self._file(f"{shown.folder}thumbnail.jpg", self._thumbnail(shown), Use.THUMBNAIL, size)
        )
        manifest = iiif_manifest.written(iiif_manifest.manifest(shown, self.manner))
        outputs.append(self._file(f"{shown.folder}manifest.json", manifest, Use.MANIFEST, about))
        if self.options.page:
            made = page.page(shown, self.manner, self.base)
            outputs.append(self._file(f"{shown.folder}index.html", made, Use.PAGE, about))

    def _thumbnail(self, shown: ShownObject) -> bytes:
        """Return the picture that stands for an object: a tile's, or what was drawn."""
        if self.options.service:
            return (self.ctx.work / shown.folder / "thumbnail.jpg").read_bytes()
        first = shown.pictures[0]
        path = first.path + first.at(first.nearest(self.manner.thumbnail)).removeprefix(first.uri).encode()
        with files.opened_beneath(self.made.root, path) as fd, open(fd, "rb", closefd=False) as file:
            return file.read()

    def _collection(self, shown: Sequence[ShownObject], outputs: list[Output]) -> None:
        made = iiif_manifest.collection(self.ctx.name, self.base, shown, self.manner)
        outputs.append(self._file("collection.json", iiif_manifest.written(made), None, {}))
        if self.options.page:
            contents = page.contents(self.ctx.name, shown, self.manner, self.base)
            outputs.append(self._file("index.html", contents, None, {}))

    def _file(self, name: str, data: bytes, use: Use | None, about: dict[str, object]) -> Output:
        files.write_durably(Path(self.ctx.work, name), data)
        detail = {**about, "uri": f"{self.base}/{name}"}
        if use is not None:
            detail["use"] = use.value
        return Output(
            path=os.fsencode(name), size=len(data), sha256=hashlib.sha256(data).hexdigest(), detail=detail
        )

    def result(self) -> Done:
        """Return what was done, and report it."""
        detail = f"IIIF Presentation 3: {self.images - self.ignored} images"
        detail += f" in {self.objects} objects" if self.objects > 1 else ""
        left = f", {self.ignored} images of no object left out" if self.ignored else ""
        left += f", {self.empty} objects without images left out" if self.empty else ""
        # Whether the public may see them all the same is for people to say, by for: and uploaders.
        left += f", {self.unpublished} of records that are not published" if self.unpublished else ""
        self.ctx.event(
            Event(
                type=EventType.EXECUTION,
                outcome="warning" if left else "success",
                detail=detail + left,
                agent=AGENT,
            )
        )
        return Done(detail=detail.removeprefix("IIIF Presentation 3: ") + left)


def _about(identifier: str, ref: str) -> dict[str, object]:
    """Return what tells whose a file is, for those who record it."""
    return {"object": identifier, **({"ref": ref} if ref else {})}


def _values(output: Output) -> dict[str, str]:
    """Return what stands in an image server's template, each as one part of a path."""
    parts = {key: quote(value, safe="") for key, value in placeholders.path_values(output.path).items()}
    return parts | {"sha256": output.sha256, "size": str(output.size)}
