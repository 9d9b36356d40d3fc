"""What the image libraries print while they work on one image."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator

#: A damaged TIFF can make libtiff complain once for each of a million strips.
_HEARD_MAX = 64 * 1024

#: How GLib prints a warning: "(process:12): VIPS-WARNING **: 10:11:12.123: TEXT".
_WARNING = re.compile(r"VIPS-WARNING \*\*: (?:[\d:.]+: )?(.*)")

#: Said of sound images too: private tags of scanners, and a profile every second PNG carries.
#: What a HEIF says of its colours without a profile is told by `besides`.
_HARMLESS = re.compile(r"Unknown field with tag|known incorrect sRGB|error in tile|^read gave|nclx")

#: Before the end of an image, or of a part of it, they are what a damaged code leaves over.
_STRAY = re.compile(r"extraneous bytes before marker 0x(?!d[0-9])")

_OF_COLOUR = re.compile(r"\b(icc|lcms|profiles?|intents?|colou?rs?)\b", re.IGNORECASE)


class LibraryMessages:
    """Keeps what the libraries print to standard error during one image, then passes it on.

    By descriptor, since a log handler of ours would be a C callback (see library.py).
    """

    def __init__(self) -> None:
        self._kept = os.memfd_create("said")
        self._from = 0
        fcntl.fcntl(self._kept, fcntl.F_SETFL, os.O_APPEND)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Keep what is printed while the block runs."""
        real = os.dup(2)
        os.ftruncate(self._kept, 0)
        self._from = 0
        os.dup2(self._kept, 2)
        try:
            yield
        finally:
            os.dup2(real, 2)
            os.close(real)
            with contextlib.suppress(OSError):  # a full disk under the step's log
                os.write(2, self._text())

    def mark(self) -> None:
        """Forget for `warnings` what was printed up to now: the next page begins."""
        self._from = os.fstat(self._kept).st_size

    def _text(self, start: int = 0) -> bytes:
        return os.pread(self._kept, _HEARD_MAX, start)

    @property
    def warnings(self) -> list[str]:
        """What libvips complained of, each thing once."""
        found = _WARNING.findall(self._text(self._from).decode("utf-8", "replace"))
        return list(dict.fromkeys(line.strip() for line in found))

    @property
    def of_damage(self) -> list[str]:
        """The complaints about a JPEG's data, but for bytes that belong to nothing."""
        return [line for line in self.warnings if "VipsJpeg" in line and not _STRAY.search(line)]

    @property
    def of_colour(self) -> list[str]:
        """The complaints about profiles and how they were used."""
        return [line for line in self.warnings if _OF_COLOUR.search(line) and not _HARMLESS.search(line)]

    @property
    def notable(self) -> list[str]:
        """The complaints worth a place in the receipt."""
        return [line for line in self.warnings if not _HARMLESS.search(line)][:3]
