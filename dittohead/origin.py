"""Which of the folder's own files an output was made of, and which object that belongs to."""

from __future__ import annotations

from collections.abc import Mapping

from dittohead.description import Described
from dittohead.threads import Stop
from dittohead.worker import Made, StepContext


def origins(ctx: StepContext, made: Made, stop: Stop) -> Mapping[bytes, bytes]:
    """Return {path of what a step took: path of the folder's own file it goes back to}.

    Empty for a step that took the folder itself: what its outputs name as their source is that file
    already. One line for each output of the steps between. Blocking.
    """
    found: dict[bytes, bytes] = {}
    chain: list[Made] = []
    before = ctx.made_by(made.source) if made.source else None
    while before is not None:
        chain.append(before)
        before = ctx.made_by(before.source) if before.source else None
    for step in reversed(chain):
        following = {}
        for output in step.outputs():
            stop.check()
            if output.source:
                following[output.path] = found.get(output.source, output.source)
        found = following
    return found


class Owners:
    """Which object a file belongs to.

    The first object that has the file, or one called alike but for its ending: a page may have been
    brought as a master and as a copy.
    """

    def __init__(self, described: Described) -> None:
        self._all: int | None = None
        self._by_path: dict[str, int] = {}
        self._by_stem: dict[str, int] = {}
        for number, each in enumerate(described.objects):
            if each.files is None and self._all is None:
                self._all = number
            for path in each.files or ():
                self._by_path.setdefault(path, number)
                self._by_stem.setdefault(_stem(path), number)

    def of(self, path: bytes) -> int | None:
        """Return the object's number, counted from 0; None for a file that is nobody's."""
        text = path.decode("utf-8", "surrogateescape")
        known = self._by_path.get(text, self._by_stem.get(_stem(text)))
        return min((number for number in (known, self._all) if number is not None), default=None)


def _stem(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    return folder + slash + (name.rpartition(".")[0] or name)
