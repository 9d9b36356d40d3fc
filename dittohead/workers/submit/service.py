"""What a preservation service can be asked, however it is reached."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from dittohead.workers.submit.notes import Attempt

#: Where a package is. "part": some of it was sent, and it is not handed over. "whole": the service has it.
#: "absent": nothing is known of it, which does not prove that the service does not have it.
State = Literal["absent", "part", "whole", "accepted", "rejected"]

Said = tuple[bool, str]


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What was seen of one package."""

    state: State
    size: int = 0  #: bytes that are there, of a part
    handle: str = ""  #: the service's own id of the transfer
    where: str = ""  #: URI of the answer
    reports: tuple[str, ...] = ()  #: where its reports are, by their ending


@dataclass(frozen=True, kw_only=True)
class PackageFile:
    """The file that is sent."""

    root: Path
    path: bytes
    size: int
    sha256: str


class PreservationService(Protocol):
    """A service that is connected."""

    async def sights_of(self, attempts: Sequence[Attempt]) -> list[Sight]:
        """Return where each package is. Raises: TargetError, TransientError."""

    async def send(
        self,
        attempt: Attempt,
        package: PackageFile,
        sight: Sight,
        *,
        begun: Callable[[str], Awaitable[Attempt]],
        commit: Callable[[], Awaitable[None]],
        progress: Callable[[int], None],
    ) -> None:
        """Send what is missing of a package, and hand it over.

        Args:
            attempt: says its name and its handle.
            sight: what is there of it.
            begun: notes the service's handle of it, durably, before bytes are sent.
            commit: called right before the call with which the service has it whole.
            progress: told how many bytes are there.

        Raises: ItemError: the file is not what its digest says, nothing was handed over; TargetError,
            TransientError: it is not known whether it was handed over when `commit` was called.
        """

    async def fetch(self, attempt: Attempt, sight: Sight) -> dict[str, bytes]:
        """Return the reports of an answer, by their ending: "xml", "html". Raises: StepError."""

    async def withdraw(self, attempt: Attempt, *, whole: bool, dry_run: bool) -> Said:
        """Remove what is there of a package that is not answered; return whether it is gone, and words.

        Args:
            whole: also where it was handed over.
            dry_run: only say what would be done.

        Raises: StepError.
        """

    def examined(self) -> AsyncIterator[Said]:
        """Say whether it can be used. Raises: StepError."""
