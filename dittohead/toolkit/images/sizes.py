"""Which images are to be smaller than others: by their names, or by a file beside them."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Sequence
from typing import Any

from dittohead.toolkit.images.options import SizeRule
from dittohead.toolkit.result_cache import name_digest


class Sizes:
    """The rules, and the side-cars of one folder; knows those by eight bytes each."""

    def __init__(self, rules: Sequence[SizeRule]) -> None:
        self._rules = rules
        self._endings = tuple(os.fsencode(rule.sidecar.lower()) for rule in rules if rule.sidecar)
        self._beside: set[int] = set()

    def learn(self, path: bytes) -> bool:
        """Take in a file of the folder; return whether it is a side-car."""
        lower = path.lower()
        name = os.path.basename(lower)
        found = any(name.endswith(e) if e.startswith(b".") else name == e for e in self._endings)
        if found:
            self._beside.add(name_digest(lower))
        return found

    def narrowed(self, path: bytes, recipe: dict[str, Any]) -> dict[str, Any]:
        """Return the recipe for one image: of all the sizes that hold for it, the smallest."""
        rules = [rule for rule in self._rules if self._fits(rule, path)]
        sides = {}
        for side in ("max_width", "max_height"):
            given = [recipe[side], *(getattr(rule, side) for rule in rules)]
            sides[side] = min((size for size in given if size is not None), default=None)
        # A rule keeps an image small; it does not make one larger.
        return {**recipe, **sides, "enlarge": recipe["enlarge"] and not rules}

    def _fits(self, rule: SizeRule, path: bytes) -> bool:
        lower = path.lower()
        subject = lower if "/" in rule.match else os.path.basename(lower)
        if not fnmatch.fnmatchcase(os.fsdecode(subject), rule.match.lower()):
            return False
        if not rule.sidecar:
            return True
        sidecar = os.fsencode(rule.sidecar.lower())
        if sidecar.startswith(b"."):
            names = [lower + sidecar, os.path.splitext(lower)[0] + sidecar]
        else:
            names = [os.path.join(os.path.dirname(lower), sidecar)]
        return any(name_digest(name) in self._beside for name in names)
