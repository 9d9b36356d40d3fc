"""Passphrases, and whether it is one archive that they do not open, or all: then nothing more is failed.

What is remembered is in memory, of digests alone, and starts again with the daemon.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from dittohead.contract.worker import StepContext
from dittohead.model.errors import ItemError, StepError, TargetError
from dittohead.workers.unpack import gpg
from dittohead.workers.unpack.options import UnpackOptions

#: Archives that a passphrase must not open, and none that it did, before it is taken to be wrong for all.
_MANY = 3


@dataclass
class _Known:
    """What is known of one passphrase."""

    opens: bool = False  #: it has opened an archive
    refused: set[str] = field(default_factory=set)  #: SHA-256 of archives that it did not


@dataclass(frozen=True)
class Given:
    """One passphrase, for one archive."""

    passphrase: str
    credential: str
    known: _Known

    def accepted(self) -> None:
        """Remember that it opened the archive."""
        self.known.opens = True

    def refused(self, sha256: str, where: str) -> StepError:
        """Return the error that it did not open the archive.

        Args:
            sha256: of the archive.
        """
        known = self.known
        known.refused.add(sha256)
        if not known.opens and len(known.refused) >= _MANY:
            return TargetError(
                f'the passphrase "{self.credential}" opens none of {len(known.refused)} archives',
                where=where,
                hint="Write the right one into the credential; what waits then goes on by itself",
            )
        others = ", which opens others," if known.opens else ""
        return ItemError(
            f'the passphrase "{self.credential}"{others} does not open it, or its first bytes are damaged',
            where=where,
            hint="Compare the archive with the original; ask for its passphrase. "
            "When that is settled: dittohead retry",
        )


class Passphrases:
    """What is known of all passphrases of this process."""

    def __init__(self) -> None:
        self._known: dict[bytes, _Known] = {}

    def given(self, ctx: StepContext, options: UnpackOptions) -> Given:
        """Return the passphrase that a step is to use. Raises: ItemError: there is none that can be used."""
        if not options.credential:
            raise ItemError(
                "the archive is encrypted, and the step has no passphrase",
                where=f"step {ctx.step}",
                hint="Name the credential that holds it with credential:, then: "
                f"dittohead rerun {ctx.job_id}",
            )
        return self.of(options.credential, ctx.secret)

    def of(self, credential: str, secret: Callable[[str], str]) -> Given:
        """Return the passphrase that a credential holds. Raises: ItemError."""
        passphrase = secret(credential)
        if not gpg.usable(passphrase):
            raise ItemError(
                f'the credential "{credential}" is not a passphrase: one line of text is expected',
                hint="Write the passphrase alone into it",
            )
        digest = hashlib.sha256(f"{credential}\0{passphrase}".encode()).digest()
        return Given(passphrase, credential, self._known.setdefault(digest, _Known()))
