"""How long runs wait where the machine is short of something: memory, processes, threads, open files."""

from __future__ import annotations

from dittohead.toolkit.backoff import wait_s

#: Waits where the machine is short of something: doubled from the first to the last while that lasts.
_FIRST_S, _MOST_S = 2.0, 60.0


class Shortage:
    """How long anyone who finds the machine short of something waits: the longer, the more of them there are.

    All wait, not the one that met it alone: each that goes on would only take from the others.
    """

    def __init__(self) -> None:
        self._met = 0

    def met(self) -> float:
        """Note that something was not available, and return for how long to wait. Seconds."""
        self._met += 1
        return wait_s(1 + self._met / 4, first_s=_FIRST_S, most_s=_MOST_S)

    def over(self) -> None:
        """Note that work has come to its end."""
        self._met = 0
