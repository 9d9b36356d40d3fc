"""One image from its file to published, verified results."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dittohead.contract.placeholders import fill, path_values
from dittohead.model import units
from dittohead.system import disk_space, files
from dittohead.toolkit.images import (
    colour,
    derivative,
    fallback_reader,
    fit,
    iiif,
    iptc,
    jp2,
    jp2_structure,
    kinds,
    loading,
    masters,
    metadata,
    proof,
    pyramid,
    read_back,
    resolution,
    tags,
    tiff,
)
from dittohead.toolkit.images.library import pyvips
from dittohead.toolkit.images.library_messages import LibraryMessages
from dittohead.toolkit.images.reasons import (
    USUAL_PIXELS,
    DamagedImage,
    RefusedImage,
    Unfit,
    explain,
    is_unsupported,
)
from dittohead.toolkit.images.recipe import LOSSLESS, MASTERS, ImageRecipe, wanted_pages
from dittohead.toolkit.uris import encoded

#: Fields of libvips that are not to reach a result: pictures of the source as it was.
_STALE = ("jpeg-thumbnail-data", "heif-thumbnail")

_PIECE = 1 << 20

#: The most pixels where nobody says.
_PIXELS = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class ConversionRequest:
    """What a child is asked for."""

    root: bytes  #: of the source
    path: bytes  #: the image, relative to `root`
    sha256: str
    work: bytes  #: where results are published
    out: bytes  #: the result, relative to `work`
    temp: bytes  #: a path for what is unfinished, on the same file system
    recipe: ImageRecipe
    careful: bool
    pixels: int  #: the most that an image or a page may have

    @classmethod
    def parse(cls, given: dict[str, Any]) -> ConversionRequest:
        """Return the request of a JSON line."""
        paths = {key: os.fsencode(given[key]) for key in ("root", "path", "work", "out", "temp")}
        return cls(
            **paths,
            sha256=given["sha256"],
            recipe=ImageRecipe(**given["recipe"]),
            careful=given.get("careful", False),
            pixels=given.get("pixels", _PIXELS),
        )


@dataclass(frozen=True, kw_only=True)
class _Page:
    """One page of a source and what happens to it."""

    fd: int
    number: int | None  #: counted from 1; None for the one the file calls its first
    out: bytes  #: relative to `work`
    recipe: ImageRecipe
    pixels: int  #: the most it may have
    warnings: list[str]
    facts: dict[str, Any]  #: for the result's detail

    @property
    def own(self) -> dict[str, Any]:
        return {"page": self.number, "dpi": self.recipe.dpi, "stray": self.recipe.stray_bytes == "allow"}


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    """Pixels ready to be written."""

    image: pyvips.Image
    changes: list[str]
    said: dict[str, Any]  #: the source's metadata
    transformed: bool  #: to another colour space
    same: bool  #: every pixel is the source's own, turned at most
    known: tuple[float, float] | None  #: pixels per mm


def convert(request: ConversionRequest, messages: LibraryMessages) -> Iterator[dict[str, Any]]:
    """Make the results of one image, and yield a record of each file that is published.

    # 1 compare the input's digest  2 write temp  3 read it all back  4 fsync  5 rename.
    # The daemon makes the names durable.
    """
    os.makedirs(os.path.dirname(os.path.join(request.work, request.out)), exist_ok=True)
    with files.opened_beneath(request.root, request.path) as fd:
        # First, so that the load finds the file in memory. Nothing else sees a flipped bit in a JPEG.
        if request.recipe.verify and files.sha256_fd(fd, files.hash_buffer())[0] != request.sha256:
            raise RefusedImage("the file is not what it was at the claim")
        try:
            yield from _made(fd, request, messages)
        except (Unfit, pyvips.Error) as error:
            why = _unfit(error)
            # Found before any of its pages was published.
            if request.recipe.unfit != "keep":
                raise why from (None if why is error else error)
            yield _keep(fd, request, str(why))


def foresee(request: ConversionRequest) -> dict[str, Any]:
    """Say by an image's headers what would happen to it; no pixel is decoded, nothing is written.

    Returns: {"pages": how many results, "kept": why the original would be kept as it is; "" where not}.
    Raises: RefusedImage, Unfit, pyvips.Error: as `convert` would.
    """
    with files.opened_beneath(request.root, request.path) as fd:
        try:
            pages = list(_fit_pages(fd, request))
            for page in pages if not request.recipe.master else ():  # those of a master were prepared
                _prepare(page)
        except (Unfit, pyvips.Error) as error:
            why = _unfit(error)
            if request.recipe.unfit != "keep":
                raise why from (None if why is error else error)
            return {"pages": 1, "kept": str(why)}
    return {"pages": len(pages), "kept": ""}


def _unfit(error: Exception) -> Unfit:
    """Return why a sound image does not fit the recipe. Raises: `error`, when it says something else."""
    if isinstance(error, Unfit):
        return error
    if not is_unsupported(str(error)):
        raise error
    return Unfit(explain(str(error), [])[1])


def _made(fd: int, request: ConversionRequest, messages: LibraryMessages) -> Iterator[dict[str, Any]]:
    for page in _fit_pages(fd, request):
        messages.mark()
        yield from _large(page)
        if request.careful:
            # libvips 8.14 crashes when a source fails late in writing a pyramid: find the reason first.
            loading.open_image(fd, **page.own).avg()
        make = _make_folder if page.recipe.format == "iiif-static" else _make_file
        yield from make(page, request, messages)


def _large(page: _Page) -> Iterator[dict[str, Any]]:
    """Report a page that will take longer than others: what one may take is measured by its pixels."""
    image = loading.open_image(page.fd, **page.own)
    if image.width * image.height > USUAL_PIXELS:
        yield {"pixels": image.width * image.height}


def _fit_pages(fd: int, request: ConversionRequest) -> Iterator[_Page]:
    """Return the pages to be made; of a master once all are found fit. Raises: RefusedImage, Unfit."""
    jp2.see_readable(fd)
    pages = _pages(fd, request)
    if not request.recipe.master:
        return pages
    if odd := masters.odd_samples(fd):
        raise Unfit(odd)
    found = list(pages)
    for page in found:
        prepared = _prepare(page)
        masters.see_fit(fd, page.number or 1, prepared.image, prepared.changes)
    return iter(found)


def _pages(fd: int, request: ConversionRequest) -> Iterator[_Page]:
    recipe, out = request.recipe, request.out
    first = loading.open_image(fd, dpi=recipe.dpi, stray=recipe.stray_bytes == "allow")
    _see_pixels(first, request.pixels)
    places = loading.pages_of(fd, first)
    count = len(places)
    wanted = wanted_pages(recipe.pages, count)
    if not wanted:
        raise RefusedImage(
            f"it has {count} page{'s' if count > 1 else ''}, and pages: {recipe.pages} are required"
        )
    if recipe.master:
        masters.see_pages(recipe.pages, count)
    warnings = []
    if recipe.pages == "first" and count > 1:
        warnings.append(f"only the first of {count} pages was converted")
    elif recipe.pages not in ("first", "all") and int(recipe.pages.rpartition("-")[2]) > count:
        warnings.append(f"it has only {count} pages of {recipe.pages}")
    for number in wanted:
        facts = {"pages": count} if count > 1 else {}
        if count > 1 and recipe.pages != "first":
            facts["page"] = number
        numbered = out[: -len(recipe.suffix)] + f"-{number:04}{recipe.suffix}".encode()
        yield _Page(
            fd=fd,
            number=_place(places[number - 1], recipe, count),
            out=numbered if "page" in facts else out,
            recipe=recipe,
            pixels=request.pixels,
            warnings=list(warnings),
            facts=facts,
        )


def _place(place: int, recipe: ImageRecipe, count: int) -> int | None:
    """Return where a page stands; None for what the file calls its first: a HEIF may mean another than 1."""
    return None if place == 1 and (recipe.pages == "first" or count == 1) else place


# -- pixels ----------------------------------------------------------------------------------


def _prepare(page: _Page) -> _Prepared:
    """Open a page and bring it to what the recipe wants and the format holds; say every change."""
    recipe = page.recipe
    image = loading.open_image(page.fd, **page.own)
    _see_pixels(image, page.pixels)
    said, known = (
        metadata.found_in(page.fd, image, page.number or 1),
        resolution.of(page.fd, image, page.number or 1),
    )
    changes = _by_loading(page, image)
    orientation = image.get("orientation") if image.get_typeof("orientation") else 1
    if 2 <= orientation <= 8:
        # Turning takes the pixels in another order than they come.
        image = loading.open_image(page.fd, access="random", **page.own).autorot()
        changes.append(f"turned upright (orientation {orientation})")
        if known and orientation >= 5:
            known = known[1], known[0]
    upright = image
    image, transformed = colour.fit(image, recipe, changes)
    width, height = fit.fitted(
        image.width, image.height, (recipe.max_width, recipe.max_height), enlarge=recipe.enlarge
    )
    if (width, height) != (image.width, image.height):
        size = f"{image.width}x{image.height} to {width}x{height}"
        changes.append(f"made {'smaller' if width < image.width else 'larger'}, {size}")
        # What was 10 cm wide stays 10 cm wide.
        known = known and (known[0] * width / image.width, known[1] * height / image.height)
        image = colour.resize(image, width, height)
    same = image is upright
    image = _with_iptc(_without(image, _STALE), page)
    return _Prepared(
        image=_with_resolution(image, known),
        changes=changes,
        said=said,
        transformed=transformed,
        same=same,
        known=known,
    )


def _see_pixels(image: pyvips.Image, most: int) -> None:
    """See by its header that an image is not too large. Raises: RefusedImage."""
    count = image.width * image.height
    if count > most:
        raise RefusedImage(
            f"it has {image.width} x {image.height} pixels, which is {count:,}, and more than the {most:,} "
            "that `pixels:` of the step allows"
        )


def _see_space(image: pyvips.Image, request: ConversionRequest) -> None:
    """See that the disk can take what a result may need, before any of it is written. Raises: OSError.

    A small file can stand for very many pixels: what is written is bounded by its header, not by its size.
    """
    recipe, free = request.recipe, disk_space.free(request.work)
    size = image.width * image.height * image.bands * pyramid.SAMPLE.get(image.format, 4)
    if not (recipe.exact or recipe.compression in LOSSLESS):
        size //= 2  # of a lossy one more is unheard of
    size = size * 4 // 3 if recipe.format in ("pyramid-tiff", "iiif-static") else size
    if size > free:
        what = f"{os.fsdecode(request.path)} may need {units.size(size)}, and {units.size(free)} are free"
        raise OSError(errno.ENOSPC, what)


def _by_loading(page: _Page, image: pyvips.Image) -> list[str]:
    """Return the changes that opening a file makes."""
    if image.get("vips-loader") == "pdfload":
        return [f"drawn at {page.recipe.dpi} dpi"]
    bits, palette = loading.sample(page.fd, image, page.number or 1)
    if palette:
        return ["palette made colours"]
    if loading.is_keyed(page.fd, image):
        return ["a transparent colour made alpha"]
    if bits in (0, 8, 16) or bits > 16:
        return []
    return [f"{bits} bit{'s' if bits > 1 else ''} made {8 if bits < 8 else 16}"]


def _without(image: pyvips.Image, names: tuple[str, ...]) -> pyvips.Image:
    image = image.copy()
    for name in names:
        if image.get_typeof(name):
            image.remove(name)
    return image


def _with_iptc(image: pyvips.Image, page: _Page) -> pyvips.Image:
    """Return the image with its IPTC as the format has it; a JPEG's own goes to a JPEG with all beside it."""
    alike = page.recipe.format == "jpeg" and image.get("vips-loader") == "jpegload"
    if alike and iptc.is_in_one_piece(page.fd):
        return image
    image, datasets = _without(image, ("iptc-data",)), iptc.of(page.fd, page.number or 1)
    if page.recipe.format == "jpeg":
        datasets = iptc.for_jpeg(datasets) if 0 < len(datasets) <= iptc.JPEG_MOST else b""
    if datasets and page.recipe.format != "pyramid-tiff":  # to a TIFF libvips writes a quarter of it
        image.set_type(pyvips.GValue.blob_type, "iptc-data", datasets)
    return image


def _with_resolution(image: pyvips.Image, known: tuple[float, float] | None) -> pyvips.Image:
    # 72 is what EXIF wants where nobody knows; elsewhere it is taken away again (see `resolution`).
    across, down = known or (72 / 25.4, 72 / 25.4)
    image = image.copy(xres=across, yres=down)
    if not image.get_typeof("resolution-unit"):
        image.set_type(pyvips.GValue.gstr_type, "resolution-unit", "in")
    return image


# -- one file --------------------------------------------------------------------------------


def _make_file(
    page: _Page, request: ConversionRequest, messages: LibraryMessages
) -> Iterator[dict[str, Any]]:
    with _published(request, page.out) as made:
        detail = _fill_file(page, made, request)
        detail |= _heard(page, messages, detail)
        digest, size = _made_durable(made)
    yield {"file": os.fsdecode(page.out), "size": size, "sha256": digest, "detail": detail}


@contextlib.contextmanager
def _published(request: ConversionRequest, out: bytes) -> Iterator[int]:
    """Give an open, empty file that is called `out` after the block, and is gone when it fails."""
    made = os.open(request.temp, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    try:
        yield made
        os.replace(request.temp, os.path.join(request.work, out))
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(request.temp)
        raise
    finally:
        os.close(made)


def _made_durable(made: int) -> tuple[str, int]:
    """Make a file durable; return its SHA-256 and size as they are read back."""
    os.fsync(made)
    os.lseek(made, 0, os.SEEK_SET)
    return files.sha256_fd(made, files.hash_buffer())


def _keep(fd: int, request: ConversionRequest, why: str) -> dict[str, Any]:
    """Publish the original itself, once all of its pages could be decoded."""
    seen = _decode(fd)
    # A result of another image never has this name: those end in the format's suffix, or are their own.
    alike = request.path.lower().endswith(request.recipe.suffix.encode())
    out = request.out if alike else request.path
    with _published(request, out) as made:
        os.lseek(fd, 0, os.SEEK_SET)
        while piece := os.read(fd, _PIECE):
            jp2.write_all(made, piece)
        digest, size = _made_durable(made)
        if digest != request.sha256:
            raise RefusedImage("its copy is not what it was at the claim")
    detail = {"kept": why} | ({} if seen else _UNSEEN)
    return {"file": os.fsdecode(out), "size": size, "sha256": digest, "detail": detail}


#: For the detail of an original that was kept and that nothing here reads.
_UNSEEN = {"warnings": ["nothing here decodes it: it was copied and compared, not looked at"]}


def _decode(fd: int) -> bool:
    """Decode all images in a file, pages or not; tell whether that can be done. Raises: Damaged."""
    if not kinds.is_read(kinds.kind_of(os.pread(fd, kinds.HEAD, 0))):
        return False
    try:
        if masters.odd_samples(fd):
            proof.decode_tiff(fd)
        else:
            _decode_by_libvips(fd)
    except (Unfit, pyvips.Error) as error:
        _unfit(error)
        return not masters.odd_samples(fd) and _decode_by_tifffile(fd)
    return True


def _decode_by_tifffile(fd: int) -> bool:
    try:
        if tiff.is_tiff(fd):
            proof.decode_tiff(fd)
            return True
    except Unfit:
        pass
    return False


def _decode_by_libvips(fd: int) -> None:
    count = loading.count(loading.open_image(fd))
    for place in range(1, count + 1):
        loading.open_image(fd, page=place if count > 1 else None).avg()


def _fill_file(page: _Page, made: int, request: ConversionRequest) -> dict[str, Any]:
    """Write one result and read it back; return its detail."""
    recipe, prepared = page.recipe, _prepare(page)
    _see_space(prepared.image, request)
    image, detail = prepared.image, _detail(page, prepared)
    wanted = _tags(page, image)
    if recipe.format == "pyramid-tiff":
        pyramid.write(image, made, recipe)
        tags.append(made, wanted.along(iptc.TAG, iptc.of(page.fd, page.number or 1)))
    elif recipe.format in MASTERS:
        detail |= _fill_jp2(page, prepared, made, tags.block(wanted))
    else:
        derivative.write(image, made, recipe, prepared.known, tags.block(wanted))
    if prepared.known is None:
        resolution.remove(made, recipe.format)
    if recipe.verify:
        if recipe.format == "pyramid-tiff":
            detail["levels"] = read_back.verify_levels(made, image, recipe)
        elif recipe.holds == "lossy":  # the others are decoded to be compared
            read_back.verify_single(made, image)
        if (recipe.exact and not recipe.proved) or recipe.compression in LOSSLESS:
            read_back.compare(_prepare(page).image, made)
            detail["lossless" if prepared.same else "compared"] = True
    after = _said_by(made, recipe)
    if wanted.within(_tags_in(made, recipe)):
        kept = (wanted.names | metadata.carried_by(image)) & prepared.said.keys()
        after |= {name: prepared.said[name] for name in kept}
    lost = metadata.lost(prepared.said, after, transformed=prepared.transformed)
    return detail | ({"lost": lost} if lost else {})


def _fill_jp2(page: _Page, prepared: _Prepared, made: int, exif: bytes) -> dict[str, Any]:
    """Write a JPEG 2000 and read its structure back; prove a master. Return what that adds to its detail."""
    recipe, opacity = page.recipe, masters.opacity(page.fd, page.number or 1)
    fast = recipe.format == "jph"
    wanted = jp2.write(prepared.image, made, recipe.tile, prepared.known, exif, opacity, high_throughput=fast)
    structure = jp2_structure.verify(made, wanted)
    if not recipe.proved:
        return {}
    source = page.fd if recipe.master else None
    evidence = proof.prove(source, page.number or 1, lambda: _prepare(page).image, made, structure)
    return {"proof": evidence, "lossless" if prepared.same else "compared": True}


def _tags(page: _Page, image: pyvips.Image) -> tags.Tags:
    """Return the source's own tags and EXIF."""
    if image.get_typeof("exif-data"):
        return tags.of_exif(bytes(image.get("exif-data")))
    return tags.of_tiff(page.fd, page.number or 1)


def _tags_in(made: int, recipe: ImageRecipe) -> tags.Tags:
    """Return the tags and EXIF of a result."""
    if recipe.format == "pyramid-tiff":
        return tags.of_tiff(made)
    if recipe.format in MASTERS:
        return tags.of_exif(jp2.carried(made)[2])
    image = read_back.reopened(made)
    return tags.of_exif(bytes(image.get("exif-data"))) if image.get_typeof("exif-data") else tags.Tags()


def _said_by(made: int, recipe: ImageRecipe) -> dict[str, Any]:
    if recipe.format in MASTERS:
        icc, xmp, _ = jp2.carried(made)
        said = (("ICC profile", icc), ("XMP", xmp), ("IPTC", iptc.of(made)))
        return {name: value for name, value in said if value}
    return metadata.found_in(made, read_back.reopened(made))


def _detail(page: _Page, prepared: _Prepared) -> dict[str, Any]:
    image = prepared.image
    detail: dict[str, Any] = {"width": image.width, "height": image.height, "bands": image.bands}
    detail |= page.facts
    if image.get_typeof(fallback_reader.READER):
        detail["read_by"] = str(image.get(fallback_reader.READER))
    if prepared.known:
        detail["dpi"] = resolution.dpi(prepared.known)
    if prepared.changes:
        detail["changes"] = prepared.changes
    return detail


def _heard(page: _Page, messages: LibraryMessages, detail: dict[str, Any]) -> dict[str, Any]:
    """Return the warnings for a result's detail. Raises: RefusedImage: its colours are not right."""
    transformed = any("made sRGB" in change for change in detail.get("changes", ()))
    if transformed and (said := messages.of_colour):
        raise RefusedImage(f"its colours cannot be transformed as its profile says ({'; '.join(said)[:200]})")
    if page.recipe.stray_bytes == "allow" and (said := messages.of_damage):
        raise DamagedImage(f"the file is damaged inside ({'; '.join(said)[:200]})")
    warnings = [*page.warnings, *messages.notable]
    return {"warnings": warnings} if warnings else {}


# -- a folder of tiles -----------------------------------------------------------------------


def _make_folder(
    page: _Page, request: ConversionRequest, messages: LibraryMessages
) -> Iterator[dict[str, Any]]:
    temp, out = Path(os.fsdecode(request.temp)), Path(os.fsdecode(os.path.join(request.work, page.out)))
    shutil.rmtree(temp, ignore_errors=True)  # of a child that died
    try:
        prepared = _prepare(page)
        _see_space(prepared.image, request)
        size = prepared.image.width, prepared.image.height
        iiif.write(lambda: _bare(_prepare(page).image), temp, page.recipe, _uri(page, request))
        count = iiif.verify(temp, size, page.recipe)
        detail = _detail(page, prepared) | {"tiles": count}
        # The profile is in every tile, or the pixels are sRGB by it.
        held = {"ICC profile"} if colour.profile(prepared.image) else set()
        kept = {name: value for name, value in prepared.said.items() if name in held}
        lost = metadata.lost(prepared.said, kept, transformed=True)
        detail |= _heard(page, messages, detail) | ({"lost": lost} if lost else {})
        records = list(_records(temp, page.out, detail))
        if out.exists():  # of an earlier try; by a rename, so that it is whole or gone
            os.rename(out, temp.with_suffix(".old"))
            shutil.rmtree(temp.with_suffix(".old"))
        os.rename(temp, out)
    finally:
        shutil.rmtree(temp, ignore_errors=True)
    yield from records


def _bare(image: pyvips.Image) -> pyvips.Image:
    """Return the image with its profile alone: the rest would be in every tile."""
    names = [name for name in image.get_fields() if name.endswith("-data") and name != "icc-profile-data"]
    names += [name for name in image.get_fields() if name.startswith("exif-")]
    return _without(image, tuple(names))


def _uri(page: _Page, request: ConversionRequest) -> str:
    """Return the image's id: the template, filled in for where the folder will be."""
    known = {key: quote(value) for key, value in path_values(page.out).items()}
    known |= {"sha256": request.sha256, "size": str(os.fstat(page.fd).st_size)}
    # What the configuration itself says may hold what cannot stand in a URI, such as a space.
    return encoded(fill(page.recipe.iiif_id, known))


def _records(folder: Path, out: bytes, detail: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a record of each file; the detail stands with info.json, the others are its parts."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder)
            digest, size = files.sha256_file(path)
            own = detail if str(name) == "info.json" else {}
            yield {"file": f"{os.fsdecode(out)}/{name}", "size": size, "sha256": digest, "detail": own}
