"""Names: what a folder can be called in the inbox, and how a path here is written there."""

from __future__ import annotations

import fnmatch
import ntpath
import os
import re
import unicodedata
from pathlib import PurePath, PurePosixPath, PureWindowsPath

from dittohead_send.errors import USAGE, SendError
from dittohead_send.words import visible

#: Bytes of a folder's name at most: a dot stands in front of it while it is sent.
NAME_MOST = 254
#: Bytes of a path within the folder, and directories above each other, at most. Source: dittohead,
#: system/files.py.
PATH_MOST = 3500
DEPTH_MOST = 255

#: Left out, and said so: what file managers put into any directory.
JUNK = frozenset({".ds_store", "thumbs.db"})

#: Names that file systems and file servers use; the daemon never takes a folder of such a name. Source:
#: dittohead, system/ignored_names.py.
_IGNORED = (
    "lost+found", "aquota.user", "aquota.group", "@eadir", "@tmp", "@sharebin", "#recycle", "#snapshot",
    "@recycle", "@recently-snapshot", "network trash folder", "temporary items", "system volume information",
    "$recycle.bin", "thumbs.db", "ehthumbs.db", "desktop.ini",
)  # fmt: skip

#: Names that mean an unfinished upload: the daemon waits until no such file is in the folder. Source:
#: dittohead, engine/folder_activity.py.
_UNFINISHED = re.compile(
    "|".join(
        fnmatch.translate(pattern).replace("XXXXXX", "[A-Za-z0-9]{6}")
        for pattern in (
            ".*.XXXXXX", ".~tmp~", ".rsync-partial", "*.filepart", "*.part", "*.partial", "*.crdownload",
            "*.download", "*.aria2", ".in.*", "*.lftp", "*.lftp-pget-status",
            ".syncthing.*.tmp", "~syncthing~*.tmp", "*.!sync", "~$*", ".~lock.*#", ".nfs[0-9a-f]*",
            ".smbdelete*", ".fuse_hidden*",
        )
    ),
    re.IGNORECASE,
)  # fmt: skip

_FLAVOUR = PureWindowsPath if os.name == "nt" else PurePosixPath

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def of_folder(given: str, flavour: type[PurePath] = _FLAVOUR) -> str:
    r"""Return the name of a folder by the path that a person gave, or "" where it has none.

    `lab1/`, `.\lab1\` and `C:\scans\lab1` are all lab1. On Windows, `"C:\scans\"` comes from the shell
    with the closing quote in it.
    """
    path = flavour(unquoted(given) if issubclass(flavour, PureWindowsPath) else given)
    return "" if path.name in ("", "..") else path.name


def unquoted(path: str) -> str:
    r"""Return a path of Windows without the quote that the shell left: `"C:\scans\"` comes as `C:\scans"`."""
    return path.rstrip('"')


def checked(name: str) -> str:
    """Return a name that can come into the inbox. Raises: SendError."""
    if why := _wrong(name):
        raise SendError(
            f'"{visible(name)}" cannot be the name of a folder in the inbox: it {why}',
            hint="Give it another one with --name",
            status=USAGE,
        )
    return name


def _wrong(name: str) -> str:
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return "is not Unicode text"
    if not name:
        return "is empty"
    if name.startswith("."):
        return "begins with a dot"
    if "/" in name or "\\" in name:
        return "holds a slash"
    if _CONTROL.search(name):
        return "holds a control character"
    if name.lower() in _IGNORED:
        return "is a name that the daemon never takes"
    return f"has more than {NAME_MOST} bytes" if length > NAME_MOST else ""


def unfinished(name: str) -> bool:
    """Tell whether the daemon takes a file or directory of this name for an unfinished upload."""
    return _UNFINISHED.fullmatch(name) is not None


def encoded(name: str) -> bytes:
    """Return a name of the local file system as it is sent: its bytes; on Windows, UTF-8.

    Raises: UnicodeEncodeError: a name of Windows that is not Unicode text.
    """
    return os.fsencode(name) if os.name == "posix" else name.encode()


def is_decomposed(name: str) -> bool:
    """Tell whether a name is written as some programs of macOS do it: the letter, then its accent."""
    return not unicodedata.is_normalized("NFC", name)


def long_path(path: str) -> str:
    r"""Return an absolute path of Windows in the form that has no limit of 260 characters, `\\?\...`.

    In this form Windows does not change the path: `CON`, and a name that ends with a dot or a blank, can be
    read as well.

    Source: Microsoft, "Maximum Path Length Limitation", "Naming Files, Paths, and Namespaces".
    """
    path = ntpath.normpath(path.replace("/", "\\"))
    if path.startswith(("\\\\?\\", "\\\\.\\")):
        return path
    return "\\\\?\\UNC\\" + path[2:] if path.startswith("\\\\") else "\\\\?\\" + path
