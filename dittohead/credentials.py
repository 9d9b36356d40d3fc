"""Secrets by file name: systemd's $CREDENTIALS_DIRECTORY, or credentials/ beside config.yaml."""

from __future__ import annotations

import os
from pathlib import Path

from dittohead.errors import ItemError


class Credentials:
    """Reads a credential at each use, so that a changed one needs no restart."""

    def __init__(self, config: Path) -> None:
        given = os.environ.get("CREDENTIALS_DIRECTORY")
        self._places = [Path(given)] if given else []
        self._places.append(config.resolve().parent / "credentials")

    def __call__(self, name: str) -> str:
        """Return a credential, without its final newline. Raises: KeyError: there is none."""
        if "/" in name or name.startswith("."):
            raise KeyError(name)
        for place in self._places:
            try:
                return (place / name).read_text(encoding="utf-8").rstrip("\r\n")
            except OSError:
                continue
        raise KeyError(name)

    def needed(self, name: str) -> str:
        """Return a credential. Raises: ItemError: there is none, with what to do."""
        try:
            return self(name)
        except KeyError as error:
            raise ItemError(
                f'there is no credential "{name}"',
                hint=f"Write it into credentials/{name} beside config.yaml, or give it to the service with "
                f"LoadCredential={name}:/path",
            ) from error
