"""The child program: serve requests about images, whatever happens to one of them.

The daemon never imports this module: a crash, a leak or a hostile image ends a child, not the
daemon. One child serves many images, since starting one costs more than a small image. It reads a
JSON request a line and answers JSON lines (file names as Python's surrogateescape text):

    {"root": DIR, "path": REL, "sha256": HEX, "work": DIR, "out": REL, "temp": PATH,
     "recipe": {...}, "careful": BOOL}
    {"pixels": N}                                                  of what is next, where it is large
    {"file": REL, "size": N, "sha256": HEX, "detail": {...}}      one for each file published
    {"ok": true}
    {"ok": false, "kind": "image" | "unfit" | "damaged" | "missing" | "disk" | "memory", "what": TEXT}

`{"root": DIR, "thumbnail": REL, "out": PATH, "size": N}` makes a small JPEG; answered by
{"ok": true, "width", "height"}.
With `"foresee": true` it only says by the headers what would happen to it: {"ok": true, "pages", "kept"}.
`{"root": DIR, "probe": REL}` only decodes a file; answered by {"ok": true, "width", "height", "bands"}.
`--probe` prints what this libvips can read and write and ends.

libvips itself never sees a file's name, only /proc/self/fd/N of a descriptor opened here: no link
is followed, a name that is not UTF-8 can be opened, "a.tif[page=1]" is not read as options, and
each opening has a position of its own. All loaders open by path, so this serves every one of them.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import sys
from collections.abc import Iterator
from typing import IO, Any

from dittohead.model.errors import ItemError
from dittohead.system.machine_faults import DISK, short_of
from dittohead.toolkit.images import conversion, htj2k, openjpeg, proof, thumbnail
from dittohead.toolkit.images.library import probe, pyvips
from dittohead.toolkit.images.library_messages import LibraryMessages
from dittohead.toolkit.images.probe import decode
from dittohead.toolkit.images.reasons import LINE_MOST, RefusedImage, explain

#: Characters of what is reported about an image that cannot be converted.
_WHAT_MOST = 1000

_messages = LibraryMessages()


def main() -> None:
    """Serve requests from standard input until it ends."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # a library that prints must not break the protocol
    memory = int(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1].isdigit() else 0
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    if "--probe" in sys.argv:
        _answer(answers, _abilities())
        return
    for line in sys.stdin.buffer:
        for answer in serve(json.loads(line)):
            if not _answer(answers, answer):
                break


def _abilities() -> dict[str, Any]:
    """Return what this machine can do: libvips, libopenjp2 ("openjpeg"), and what proves masters."""
    found = probe()
    codec, lacking = openjpeg.version()
    if codec and "jp2k" in found["load"]:
        found["formats"].append("jp2")
    fast = htj2k.version()
    if fast:
        found["formats"].append("jph")
    missing = {"jp2": lacking} if lacking else {}
    return found | {"openjpeg": codec, "htj2k": fast, "proof": proof.tools(), "missing": missing}


def _answer(answers: IO[bytes], value: dict[str, Any]) -> bool:
    """Send a line; in place of one that is too long, that the image failed. Returns: False then."""
    line = json.dumps(value).encode() + b"\n"
    fits = len(line) < LINE_MOST
    if not fits:
        failure = {"ok": False, "kind": "image", "what": "what is to be said of it is too long"}
        line = json.dumps(failure).encode() + b"\n"
    answers.write(line)
    return fits


def serve(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Convert one image and yield the answers, whatever happens to it."""
    with _messages.listening():
        try:
            if "probe" in request:
                yield {"ok": True, **decode(request)}
                return
            if request.get("foresee"):
                yield {"ok": True, **conversion.foresee(conversion.ConversionRequest.parse(request))}
                return
            if "thumbnail" in request:
                yield {"ok": True, **thumbnail.make(request)}
                return
            yield from conversion.convert(conversion.ConversionRequest.parse(request), _messages)
            yield {"ok": True}
        except Exception as error:  # noqa: BLE001  # one image's surprise must not take the next one along
            yield _failure(error)


def _failure(error: Exception) -> dict[str, Any]:
    """Return an error as the answer's last line, its words fit to be shown and bounded."""
    answer = _failed(error)
    # Words of libraries may repeat what a file says, in bytes that are not text.
    what = answer["what"].encode("utf-8", "replace").decode()
    return {**answer, "what": what[:_WHAT_MOST]}


def _failed(error: Exception) -> dict[str, Any]:
    try:
        raise error
    except RefusedImage as error:
        return {"ok": False, "kind": error.kind, "what": str(error)}
    except ItemError as error:
        return {"ok": False, "kind": "image", "what": error.what}
    except MemoryError:
        return {"ok": False, "kind": "memory", "what": "it needs more memory than is allowed"}
    except OSError as error:
        if error.errno != errno.ENOMEM and (short := short_of(error)):
            return {"ok": False, "kind": "short", "what": short}
        kind = "disk" if error.errno in DISK else "image"
        return {"ok": False, "kind": kind, "what": error.strerror or str(error)}
    except pyvips.Error as error:
        kind, what = explain(str(error), _messages.warnings)
        return {"ok": False, "kind": kind, "what": what}
    except Exception as error:  # noqa: BLE001  # of ours; named as such
        return {"ok": False, "kind": "image", "what": f"unforeseen {type(error).__name__}: {error}"}
