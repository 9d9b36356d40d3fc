"""How often wrong tokens are taken: per address and overall, in memory, of bounded size.

A right token is never refused for the wrong ones of others: anybody could lock everybody out by them. What
keeps tokens from being guessed is their length; the pace bounds what guessing costs us.
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

#: Failed tries of one address: so many at once, then one in so many seconds.
BURST, EVERY_S = 10, 6.0

#: Failed tries of all addresses together.
ALL_BURST, ALL_EVERY_S = 300, 0.2

#: Addresses that are remembered; of more, those that were silent longest are forgotten.
_MOST = 4096

#: One line in the log of an address in so many seconds.
_LOG_EVERY_S = 10.0


@dataclass
class _Bucket:
    """Tries that are left, at a moment."""

    left: float
    at: float


class AttemptLimit:
    """Counts failed tries; belongs to one event loop."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._by_address: OrderedDict[str, _Bucket] = OrderedDict()
        self._all = _Bucket(ALL_BURST, now())
        self._logged: OrderedDict[str, float] = OrderedDict()

    def wrong(self, address: str) -> float:
        """Count a wrong token; return the seconds until another of this address is looked at, 0 for now."""
        wait_s = self.wait_s(address)
        if wait_s <= 0:
            self.failed(address)
        return wait_s

    def wait_s(self, address: str) -> float:
        """Return how many seconds this address must wait before its next try; 0 when it need not."""
        own = self._bucket(address)
        _fill(own, self._now(), BURST, EVERY_S)
        _fill(self._all, self._now(), ALL_BURST, ALL_EVERY_S)
        return max((1 - own.left) * EVERY_S, (1 - self._all.left) * ALL_EVERY_S, 0.0)

    def failed(self, address: str) -> None:
        """Count a try that failed."""
        self._bucket(address).left -= 1
        self._all.left -= 1

    def may_log(self, address: str) -> bool:
        """Tell whether a failure of this address is logged: a flood of them is one line now and then."""
        key, now = _neighbourhood(address), self._now()
        if now - self._logged.get(key, float("-inf")) < _LOG_EVERY_S:
            return False
        self._logged[key] = now
        self._logged.move_to_end(key)
        while len(self._logged) > _MOST:
            self._logged.popitem(last=False)
        return True

    def _bucket(self, address: str) -> _Bucket:
        key = _neighbourhood(address)
        bucket = self._by_address.setdefault(key, _Bucket(BURST, self._now()))
        self._by_address.move_to_end(key)
        while len(self._by_address) > _MOST:
            self._by_address.popitem(last=False)
        return bucket


def _fill(bucket: _Bucket, now: float, most: int, every_s: float) -> None:
    bucket.left = min(most, bucket.left + (now - bucket.at) / every_s)
    bucket.at = now


def _neighbourhood(address: str) -> str:
    """Return what counts as one address: of IPv6 the first 64 bits, which one household has to itself."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    mapped = getattr(found, "ipv4_mapped", None)  # as a proxy may write it
    if found.version == 4 or mapped is not None:
        return str(mapped or found)
    return str(ipaddress.ip_network((found, 64), strict=False))
