"""The images a IIIF manifest shows: where their tiles are, how large they are, in which order.

Source: IIIF Image API 3.0, 4 (image requests) and 5 (image information).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dittohead.model.text import display
from dittohead.toolkit.uris import encoded, web_address

#: Width and height of the tiles that are asked of an image server, pixels.
_SERVED_TILE = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """One image with its IIIF image service."""

    path: bytes  #: of its folder of tiles, or its file, as the step that made it calls it
    origin: bytes  #: the folder's own file it goes back to
    uri: str  #: of its image service
    profile: str  #: what the service can do: level0, level1, level2
    width: int  #: pixels
    height: int
    tile: int  #: width and height of a tile, pixels
    factors: tuple[int, ...]  #: scale factors of the tiles
    sizes: tuple[tuple[int, int], ...]  #: of the whole image, as files that exist; the smallest first

    @property
    def name(self) -> str:
        """The original file's name without its ending, for people."""
        file = display(self.origin or self.path).rpartition("/")[2]
        return file.rpartition(".")[0] or file

    @property
    def folder(self) -> str:
        """The folder the original file lies in, "" for the outermost, for people."""
        return display(self.origin or self.path).rpartition("/")[0]

    def at(self, size: tuple[int, int] | None) -> str:
        """Return the URI of the whole image in one of its sizes, None for the largest."""
        return f"{self.uri}/full/{'max' if size is None else self._size(size)}/0/default.jpg"

    def _size(self, size: tuple[int, int]) -> str:
        # A service of level 1 need not know widths and heights together.
        return f"{size[0]}," if self.profile == "level1" else f"{size[0]},{size[1]}"

    def nearest(self, least: int) -> tuple[int, int] | None:
        """Return the smallest size whose longer side has at least so many pixels, otherwise the largest.

        None when the image is there whole only.
        """
        enough = (size for size in self.sizes if max(size) >= least)
        return next(enough, self.sizes[-1] if self.sizes else None)


def of_info(info: dict[str, Any], path: bytes, origin: bytes) -> Picture:
    """Return the picture of an image information document of our own making.

    Args:
        info: the document, as JSON.
        path: the folder of tiles, relative to its step's output.
        origin: the payload's file that it was made from.

    Raises: ValueError, KeyError, IndexError, TypeError: it is not as it should be.
    """
    tiles = info["tiles"][0]
    if not (uri := web_address(str(info["id"]))):
        raise ValueError(info["id"])
    return Picture(
        path=path,
        origin=origin,
        uri=uri,
        profile=info["profile"],
        width=int(info["width"]),
        height=int(info["height"]),
        tile=int(tiles["width"]),
        factors=tuple(int(factor) for factor in tiles["scaleFactors"]),
        sizes=tuple(sorted((int(size["width"]), int(size["height"])) for size in info["sizes"])),
    )


def served(uri: str, profile: str, size: tuple[int, int], path: bytes, origin: bytes) -> Picture:
    """Return the picture of a file behind an image server, which gives any tile and any size.

    Args:
        uri: the image's URI at the server; it is percent-encoded where it must be.
        profile: what the server can do: "level1" or "level2".
        size: (width, height) in pixels.
        path: the file that is served, relative to its step's output.
        origin: the payload's file that it was made from.
    """
    factors = [1]
    while max(-(-size[0] // factors[-1]), -(-size[1] // factors[-1])) > _SERVED_TILE:
        factors.append(factors[-1] * 2)
    # An image server that has a pyramid gives these without scaling.
    sizes = [(-(-size[0] // factor), -(-size[1] // factor)) for factor in (*factors, factors[-1] * 2)]
    return Picture(
        path=path,
        origin=origin,
        uri=encoded(uri),
        profile=profile,
        width=size[0],
        height=size[1],
        tile=_SERVED_TILE,
        factors=tuple(factors),
        sizes=tuple(sorted(sizes)),
    )
