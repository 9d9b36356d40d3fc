"""A GRIN of a library's: lists, conversions, archives and sign-in; strict about who asks and what for.

What is known of it is what its public clients do with it: nobody outside its partners reaches it. See
docs/simulators.md.
"""

from __future__ import annotations

from tests.support.grin.archives import PASSPHRASE, sealed, unreadable, volume
from tests.support.grin.server import Server, serving
from tests.support.grin.world import World

__all__ = ["PASSPHRASE", "Server", "World", "sealed", "serving", "unreadable", "volume"]
