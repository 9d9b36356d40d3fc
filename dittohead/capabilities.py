"""What the kernel lets this process do beside its user's rights."""

from __future__ import annotations

import functools
from pathlib import Path

# Source: capabilities(7), linux/capability.h.
DAC_OVERRIDE, FOWNER, LEASE = 1, 3, 28


@functools.cache
def effective() -> int:
    """Return the capabilities that count for this process, a bit each; 0 where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)


def has(capability: int) -> bool:
    """Tell whether this process has a capability."""
    return bool(effective() >> capability & 1)
