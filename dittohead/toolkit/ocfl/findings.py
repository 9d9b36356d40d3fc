"""What is wrong with an object or a storage root, by the codes of the specification.

Source: OCFL 1.1, validation codes: https://ocfl.io/1.1/spec/validation-codes.html.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class OcflFinding:
    """One thing that is wrong (a code that begins with E) or should be otherwise (W)."""

    code: str
    where: str  #: a path relative to what was checked; "" for all of it
    what: str

    def __str__(self) -> str:
        return f"{self.code} {self.where}: {self.what}" if self.where else f"{self.code} {self.what}"


@dataclass
class OcflFindings:
    """All that was found."""

    errors: list[OcflFinding] = field(default_factory=list)
    warnings: list[OcflFinding] = field(default_factory=list)

    def add(self, code: str, where: str, what: str) -> None:
        """Note one thing; its code says how grave it is."""
        into = self.errors if code.startswith("E") else self.warnings
        into.append(OcflFinding(code, where, what))

    def under(self, place: str, others: OcflFindings) -> None:
        """Take over what was found in something that lies at a place."""
        for one in (*others.errors, *others.warnings):
            self.add(one.code, f"{place}/{one.where}" if one.where else place, one.what)

    @property
    def codes(self) -> set[str]:
        """The codes of all errors and warnings."""
        return {one.code for one in (*self.errors, *self.warnings)}

    def summary(self, most: int = 5) -> str:
        """Return the first errors in one line, and how many more there are."""
        more = len(self.errors) - most
        return "; ".join(map(str, self.errors[:most])) + (f"; and {more:,} more" if more > 0 else "")
