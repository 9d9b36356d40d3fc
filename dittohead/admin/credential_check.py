"""Credentials that a configuration names: whether they are there, as far as the asking user can know it.

The service is given its own by systemd, and nobody else sees those: its unit's files say which.
"""

from __future__ import annotations

import errno
import os
import pwd
import shlex
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dittohead.config.positions import Document, Place
from dittohead.model.errors import ConfigError, DittoheadError, TransientError
from dittohead.system.credentials import Credentials, UnreadableCredential
from dittohead.system.service_units import Unit, line_for

#: What programs are told is theirs, whatever its names are.
_THEIRS = frozenset({"env", "fields", "metadata", "values"})


@dataclass(frozen=True, kw_only=True)
class NamedCredential:
    """A credential's name, and where it stands."""

    name: str
    place: Place
    key: str

    @property
    def may_be_empty(self) -> bool:
        """Whether an empty one is a choice: of a list of tokens, that nobody may read and act."""
        return self.key == "tokens"


@dataclass(frozen=True, kw_only=True)
class Vouched:
    """What is known of all of them."""

    problems: tuple[DittoheadError, ...]
    unseen: tuple[str, ...]  #: names of those of which this user cannot know


def named(document: Document) -> Iterator[NamedCredential]:
    """Yield what a configuration names, each name once, at its first place."""
    seen: set[str] = set()
    for one in _named(document.data, ()):
        if one.name not in seen and "{" not in one.name:
            seen.add(one.name)
            yield one


def _named(data: Any, place: Place) -> Iterator[NamedCredential]:
    if isinstance(data, list):
        for index, item in enumerate(data):
            yield from _named(item, (*place, index))
    if not isinstance(data, dict):
        return
    for key, value in data.items():
        here = (*place, key)
        if key in ("credential", "credentials") or key.endswith("_credential") or here == ("http", "tokens"):
            yield from _names(value, here, key)
        elif key == "secrets" and place[-1:] == ("command",) and isinstance(value, dict):
            for variable, name in value.items():
                yield from _names(name, (*here, variable), f"{key}: {{{variable}}}")
        elif key not in _THEIRS:
            yield from _named(value, here)


def _names(value: Any, place: Place, key: str) -> Iterator[NamedCredential]:
    many = isinstance(value, list)
    for index, name in enumerate(value if many else [value]):
        if isinstance(name, str) and name:
            yield NamedCredential(name=name, place=(*place, index) if many else place, key=key)


def vouch(document: Document, unit: Unit | None) -> Vouched:
    """Look for all that a configuration names. Blocking.

    Args:
        unit: the service's, where it runs by exactly this configuration and this is not the service itself.
    """
    own = Credentials(document.path)
    problems: list[DittoheadError] = []
    unseen: list[str] = []
    for one in named(document):
        try:
            why = _lacks(one, own) if unit is None else _service_lacks(one, document.path, unit)
        except _Unseen:
            unseen.append(one.name)
            continue
        if why is not None:
            what, hint = why
            where = document.where(one.place)
            problems.append(ConfigError(f'"{one.key}": {what}', where=where, hint=hint))
    return Vouched(problems=tuple(problems), unseen=tuple(unseen))


class _Unseen(Exception):
    """This user cannot know."""


def _empty(name: str, path: str) -> tuple[str, str]:
    return f'the credential "{name}" is empty', f"Write the secret into {path}"


def _lacks(one: NamedCredential, own: Credentials) -> tuple[str, str] | None:
    """Return what is wrong with a credential and what to do, by what this process itself is given."""
    name = one.name
    try:
        if not own(name).strip() and not one.may_be_empty:
            return _empty(name, f"credentials/{name} beside it")
    except UnreadableCredential as error:
        if "UTF-8" in str(error):
            return f'the credential "{name}" cannot be used: {error}', "Write the secret alone into it"
        raise _Unseen from error
    except KeyError:
        # Beside the configuration, and nowhere else: no unit runs by it.
        hint = f"Write it into credentials/{name} beside it, mode 600, or correct the name"
        return f'there is no credential "{name}"', hint
    except TransientError as error:
        raise _Unseen from error
    return None


def _service_lacks(one: NamedCredential, config: Path, unit: Unit) -> tuple[str, str] | None:
    """The same of the service."""
    name = one.name
    if unit.gives(name):
        source = unit.credentials.get(name, "")
        if source and not _is_there(Path(source)):
            what = f"LoadCredential={name}:{source} in the unit names a file that is not there"
            return (
                what,
                f"Write it, the secret alone: `sudoedit {shlex.quote(source)}`; the service would not start",
            )
        if source and not one.may_be_empty and _is_empty(Path(source)):
            return _empty(name, f"it: sudoedit {shlex.quote(source)}")
        return None
    config = config.resolve()
    beside = config.parent / "credentials" / name
    if "/" in name or name.startswith(".") or not _is_there(beside):
        what = f'there is no credential "{name}", for the service is given none of that name'
        return (
            what,
            f"Write it to {beside}, and add {line_for(name, config)} to the unit (docs/install.md#secrets)",
        )
    if _may_read(beside, unit.user):
        return _empty(name, str(beside)) if not one.may_be_empty and _is_empty(beside) else None
    what = f'the service is not given the credential "{name}"; {beside} is for others than {unit.user}'
    return what, f"Add {line_for(name, config)} to the unit (docs/install.md#secrets)"


def _is_there(path: Path) -> bool:
    """Tell whether there is a file. Raises: _Unseen: this user may not know."""
    try:
        path.stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return False
        raise _Unseen from error
    return True


def _is_empty(path: Path) -> bool:
    try:
        return not path.read_bytes().strip()
    except OSError as error:
        raise _Unseen from error


def _may_read(path: Path, user: str) -> bool:
    """Tell whether a user may read a file, by the modes on the way; where a list has a say: yes, perhaps."""
    try:
        known = pwd.getpwnam(user)
    except KeyError:
        return True
    groups = os.getgrouplist(user, known.pw_gid)
    if known.pw_uid == 0:
        return True
    wanted = [(parent, 0o1) for parent in path.parents] + [(path, 0o4)]
    return all(_allows(place, right, known.pw_uid, groups) for place, right in wanted)


def _allows(path: Path, right: int, uid: int, groups: list[int]) -> bool:
    status = os.stat(path)
    if "system.posix_acl_access" in _attributes(path):
        return True
    mode = stat.S_IMODE(status.st_mode)
    shift = 6 if status.st_uid == uid else 3 if status.st_gid in groups else 0
    return bool(mode >> shift & right)


def _attributes(path: Path) -> list[str]:
    try:
        return os.listxattr(path)
    except OSError:
        return []
