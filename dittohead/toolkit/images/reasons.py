"""Why an image cannot be converted, in words of people."""

from __future__ import annotations

import re

#: Bytes of the longest line of a child's answer; the daemon reads no longer one.
LINE_MOST = 1 << 20

#: Pixels of an image that may take as long as `timeout` says; larger ones as much longer.
USUAL_PIXELS = 100_000_000

_DAMAGED = (
    r"premature end|truncat|not enough data|unexpected end|end of (file|stream)|bytes, expected"
    r"|inconsistent with stream length|corrupt|read error|decod|unable to (read|parse)|bad |invalid"
    r"|not yet in table"
)

#: What libvips, libtiff, libjpeg and libheif say of what is sound and beyond them.
_UNSUPPORTED = re.compile(
    r"tiff2vips: .*(not supported|unsupported|whole number of bytes|not a|must be)"
    r"|(compression|codec|scheme).*(not (yet )?(implemented|supported|configured))"
    r"|unsupported (jpeg process|codec|feature|image type|color)|heif.*unsupported|can ?not handle",
    re.IGNORECASE,
)

#: libvips' words and what they mean to a technician; the first that matches.
_MEANINGS = (
    ("disk", r"No space left|Disk quota|Read-only file system", "the disk of work/ is full"),
    (
        "memory",
        r"(out of|insufficient) memory|(unable to|cannot) allocate",
        "it needs more memory than is allowed",
    ),
    # Since libheif 1.16 each is a package of its own in Debian.
    (
        "missing",
        r"no decoding plugin installed",
        "libheif here lacks the decoder for it: libheif-plugin-dav1d (AVIF), libheif-plugin-libde265 (HEIC)",
    ),
    # The two look alike to most decoders, and ask for the same: scan or copy it again.
    ("damaged", _DAMAGED, "the file ends early or is damaged inside"),
)


def is_unsupported(complaint: str) -> bool:
    """Tell whether libvips says that it does not know the kind of an image, not that it is damaged."""
    return bool(_UNSUPPORTED.search(complaint))


class RefusedImage(Exception):  # says what happened to the image
    """This image cannot be converted; the message is for people."""

    kind = "image"  #: in the child's answer


class DamagedImage(RefusedImage):
    """The file ends early, or holds what cannot be right: it must be scanned or copied again."""

    kind = "damaged"


class Missing(RefusedImage):
    """The image may be sound; what reads its kind is not installed here."""

    kind = "missing"


class Unfit(RefusedImage):
    """The image is sound, and the format wanted cannot hold it as it is."""

    kind = "unfit"


def explain(complaint: str, said: list[str]) -> tuple[str, str]:
    """Return (kind, libvips' complaint in words with its own last line in brackets).

    Args:
        complaint: the error's text.
        said: the warnings before it, which often tell more.
    """
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    telling = (
        [line for line in lines if not line.startswith("unable to call")] or lines or ["no reason given"]
    )
    own = re.sub(r'"?/proc/self/fd/\d+"?', "the file", telling[-1])[:200]
    if is_unsupported(complaint):
        return "unfit", f"it is of a kind that is not read here ({own})"
    for kind, pattern, meaning in _MEANINGS:
        if re.search(pattern, "\n".join([complaint, *said]), re.IGNORECASE):
            return kind, f"{meaning} ({own})"
    return "image", f"the image library refused it ({own})"
