"""What the kernel lets this process do beside its user's rights."""

from __future__ import annotations

import functools
import os
from pathlib import Path

# Source: capabilities(7), linux/capability.h.
DAC_OVERRIDE, FOWNER, LEASE = 1, 3, 28


def effective() -> int:
    """Return the capabilities that count for this process, a bit each; 0 where the system does not say."""
    return _as_user(os.geteuid())


@functools.cache
def _as_user(uid: int) -> int:
    """Return those of this process as this user: asked for often, and lost when it becomes another."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)


def has(capability: int) -> bool:
    """Tell whether this process has a capability."""
    return bool(effective() >> capability & 1)
