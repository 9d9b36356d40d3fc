"""How an archive says that it cannot be unpacked: it is damaged, or a member of it is refused."""

from __future__ import annotations

#: What to do about an archive that is damaged.
FETCH_AGAIN = "Fetch or copy the archive again, then drop the folder again"


class BrokenArchive(Exception):
    """The bytes end early, or are not what their format says; says what and where."""


class RefusedMember(Exception):
    """A member that is not taken, whether the archive is sound or not.

    Args:
        what: what is wrong with it.
        member: its name, as the archive gives it; b"" where it is the archive itself.
        hint: what to do.
    """

    def __init__(self, what: str, *, member: bytes = b"", hint: str = "") -> None:
        super().__init__(what)
        self.what, self.member, self.hint = what, member, hint
