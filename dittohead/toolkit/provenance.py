"""Which of the folder's own files an output was made of, and which object that belongs to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dittohead.contract.worker import Made, StepContext
from dittohead.model.description import Described
from dittohead.model.errors import ItemError
from dittohead.system.threads import Stop


@dataclass(frozen=True, slots=True)
class Origin:
    """The folder's own file that something was made of."""

    path: bytes
    detail: dict[str, Any]  #: what the steps between report about it, the last one's word before the others'


class Chain:
    """Follows files back through the steps that made them; each step's list is read once. Blocking."""

    def __init__(self, ctx: StepContext, stop: Stop | None = None) -> None:
        self._ctx, self._stop = ctx, stop
        self._made: dict[str, dict[bytes, Origin]] = {}

    def taken(self, made: Made) -> Mapping[bytes, Origin] | None:
        """Return the origin of each file a step took, by its path; None when it took the folder itself.

        Files that were made of none are left out.

        Raises: ItemError: of a step between nothing is known.
        """
        if not made.source:
            return None
        if made.source not in self._made:
            source = self._ctx.made_by(made.source)
            if source is None:
                raise ItemError(
                    f'what "{made.name}" delivered was made by "{made.source}", of which nothing is known',
                    hint=f"Run the folder again: dittohead rerun {self._ctx.job_id}",
                )
            self._made[made.source] = dict(self._outputs(source))
        return self._made[made.source]

    def _outputs(self, made: Made) -> Iterator[tuple[bytes, Origin]]:
        before = self.taken(made)
        for output in made.outputs():
            if self._stop is not None:
                self._stop.check()
            found = self.origin(output.source, before)
            if found is not None:
                yield output.path, Origin(found.path, {**found.detail, **output.detail})

    @staticmethod
    def origin(path: bytes, taken: Mapping[bytes, Origin] | None) -> Origin | None:
        """Return the origin of what was made of a file that a step took; None where there is none.

        Args:
            path: the file; b"" for none.
            taken: what `taken` returned for the step.
        """
        if not path:
            return None
        return Origin(path, {}) if taken is None else taken.get(path)


def origins(ctx: StepContext, made: Made, stop: Stop) -> Mapping[bytes, bytes]:
    """Return {path of what a step took: path of the folder's own file it goes back to}.

    Empty for a step that took the folder itself: what its outputs name as their source is that file
    already. One line for each output of the step before. Blocking. Raises: ItemError: see `Chain.taken`.

    Args:
        made: the step whose outputs are asked about.
        stop: checked for each line that is read.
    """
    return {path: found.path for path, found in (Chain(ctx, stop).taken(made) or {}).items()}


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
        """Return the object's number, counted from 0; None for a file of no object."""
        text = path.decode("utf-8", "surrogateescape")
        known = self._by_path.get(text, self._by_stem.get(_stem(text)))
        return min((number for number in (known, self._all) if number is not None), default=None)


def _stem(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    return folder + slash + (name.rpartition(".")[0] or name)
