"""Results of earlier jobs, taken over where input, recipe and tools are the same."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dittohead.model.errors import ItemError
from dittohead.system import files
from dittohead.system.threads import Stop
from dittohead.toolkit.result_cache import ResultCache


def journal_of(work: Path) -> Path:
    """Return where the journal of a step lies whose work directory this is."""
    return work.with_name(f"{work.name}.journal.jsonl")


def is_whole(work: Path, file: dict[str, Any], stop: Stop) -> bool:
    """Tell whether a file has the digest and size that a journal gives it.

    Args:
        work: the directory that the journal's paths are relative to.
        file: as the journal has it: {"file": path, "sha256": hex, "size": bytes}.
        stop: checked for each piece that is read.

    Raises: Stopped. A file that is missing or cannot be read is not whole.
    """
    with contextlib.suppress(OSError, ItemError):
        with files.opened_beneath(work, os.fsencode(file["file"])) as fd:
            made = files.sha256_fd(fd, files.hash_buffer(), lambda _: stop.check())
        return made == (file["sha256"], file["size"])
    return False


class Earlier:
    """What the same step made in earlier jobs of the folder, the latest first. Blocking.

    Args:
        works: its work directories there.
        recipe: with the versions of tools.
    """

    def __init__(self, works: Sequence[Path], recipe: dict[str, Any]) -> None:
        self._found = [(work, ResultCache(journal_of(work), recipe)) for work in works]

    def load(self) -> None:
        """Read their journals."""
        for _, cache in self._found:
            cache.read()

    def take(self, out: bytes, source: str, work: Path, stop: Stop) -> list[dict[str, Any]] | None:
        """Bring results into `work`, by links that share the data; return them, None when there are none.

        Args:
            out: where the result goes, relative to the work directory, as bytes.
            source: the SHA-256 of the file it is made from, in hex.
            work: this job's work directory of the step; the links are made there.
            stop: checked while files are compared.

        Returns: what is known of each file, as the journal has it: {"file", "detail", ...}.
        Raises: Stopped.
        """
        for theirs, cache in self._found:
            known = cache.find(out, source)
            if known is not None and all(self._link(file, theirs, work, stop) for file in known["files"]):
                for file in known["files"]:
                    file["detail"].setdefault("reused_from", theirs.parent.name)
                made: list[dict[str, Any]] = known["files"]
                return made
        return None

    def _link(self, file: dict[str, Any], theirs: Path, work: Path, stop: Stop) -> bool:
        path = work / file["file"]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            os.link(theirs / file["file"], path, follow_symlinks=False)
        except OSError:
            return False
        return is_whole(work, file, stop)
