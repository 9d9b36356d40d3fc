"""Whether the long parts of the tests run: `LONG_TESTS=1 make test`."""

from __future__ import annotations

import os

LONG = bool(os.environ.get("LONG_TESTS"))
