"""Where folders are sent: [user@]host:[inbox]."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dittohead_send.errors import USAGE, SendError

_FORM = re.compile(
    r"(?:(?P<user>[^@\s]+)@)?(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[^@:\s/\\]+):(?P<path>.*)", re.DOTALL
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """An account, and the inbox as the account names it."""

    user: str  #: "" for what ~/.ssh/config says, or the name here
    host: str  #: a name, an address, or an alias of ~/.ssh/config
    path: str  #: "" for the usual places

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.user}@{host}" if self.user else host


def parse(text: str) -> Target:
    """Return the target that a person wrote. Raises: SendError."""
    found = _FORM.fullmatch(text)
    if found is None or (len(found["host"]) == 1 and not found["user"]):
        raise SendError(
            "the last argument says where to send, and this does not",
            where=text,
            hint="Write user@host: or user@host:path/of/inbox",
            status=USAGE,
        )
    path = found["path"]
    path = path[2:] if path.startswith("~/") else "" if path == "~" else path
    return Target(user=found["user"] or "", host=found["host"].strip("[]"), path=path)
