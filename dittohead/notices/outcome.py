"""What may come of handing a notice over, besides that it was taken."""

from __future__ import annotations

from collections.abc import Callable

from dittohead.model.errors import TransientError
from dittohead.system.credentials import UnreadableCredential


class NotSent(Exception):
    """A try failed; the message holds no secret.

    Args:
        retry_after_s: seconds the receiver asked for.
        gone: the receiver wants no notices any more.
        receivers_fault: it would have failed with any other notice too.
    """

    def __init__(
        self,
        error: str,
        *,
        retry_after_s: float | None = None,
        gone: bool = False,
        receivers_fault: bool = True,
    ) -> None:
        super().__init__(error)
        self.retry_after_s, self.gone, self.receivers_fault = retry_after_s, gone, receivers_fault


def credential(credentials: Callable[[str], str], name: str) -> str:
    """Return a credential. Raises: NotSent: there is none, or it cannot be read."""
    try:
        return credentials(name)
    except TransientError as error:
        raise NotSent(str(error), receivers_fault=False) from error
    except UnreadableCredential as error:
        raise NotSent(f'the credential "{name}" cannot be used: {error}') from error
    except KeyError as error:
        raise NotSent(f'there is no credential "{name}"') from error
