"""What a delivery sends: the list of files, and that they stay as the manifest has them meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from dittohead.contract.worker import Inputs
from dittohead.folders import manifest
from dittohead.model.errors import TransientError
from dittohead.model.records import Entry
from dittohead.system import attributes, files
from dittohead.system.attributes import Extras
from dittohead.system.threads import Stop


def touched(source: Inputs, stop: Stop) -> Iterator[tuple[bytes, int]]:
    """Yield (path, ctime in ns) of the payload's files whose times are not those of the manifest."""
    for entry in source.entries():
        stop.check()
        if entry.is_dir or not entry.ctime_ns:  # what a step made is the daemon's own
            continue
        with files.opened_beneath(source.root, entry.path) as fd:
            status = os.fstat(fd)
        if (status.st_size, status.st_mtime_ns, status.st_ctime_ns) != (
            entry.size,
            entry.mtime_ns,
            entry.ctime_ns,
        ):
            yield entry.path, status.st_ctime_ns


def unchanged(source: Inputs, before: dict[bytes, int], stop: Stop) -> None:
    """See that what was compared with the remote system was what the manifest says.

    Args:
        before: what `touched` said before the comparison.

    Raises: ItemError: a file is another; TransientError: one was touched meanwhile.
    """
    meanwhile = dict(touched(source, stop))
    for entry in source.entries():
        if entry.path not in meanwhile:
            continue
        with files.opened_beneath(source.root, entry.path) as fd:
            digest, _ = files.sha256_fd(fd, files.hash_buffer(), lambda n: stop.check())
        if digest != entry.sha256:
            raise manifest.changed(entry.path, "changed")
        if before.get(entry.path) != meanwhile[entry.path]:
            raise TransientError("this was touched while it was delivered", where=os.fsdecode(entry.path))


def write_list(
    source: Inputs, path: Path, stop: Stop, note: Callable[[Entry], None] = lambda entry: None
) -> Extras:
    """Write the list of what rsync is to send; return what it amounts to.

    Args:
        source: the files; their names and attributes are read from disk, not their content.
        path: the list's file; it is overwritten. Names in it end with NUL.
        stop: checked before each file.
        note: called for each file before it is listed.

    Raises: ItemError: a file has gone since the manifest was taken; OSError, Stopped.
    """
    root = os.fsencode(source.root)
    with open(path, "wb") as out:

        def write(entry: Entry) -> None:
            stop.check()
            note(entry)
            # "./": a name that begins with # or ; would be a comment; and no slash at the end, which would
            # send what is in a folder by now. Source: rsync(1), --files-from, --dirs.
            out.write(b"./" + entry.path + b"\0")

        try:
            return attributes.survey(root, source.entries(), write, attributes=source.made is None)
        except FileNotFoundError as error:
            raise manifest.changed(os.path.relpath(error.filename, root), "removed") from error
