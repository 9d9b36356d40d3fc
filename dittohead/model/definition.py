"""What a job is to do, what its steps have come to, and why it failed: typed, and as the store keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dittohead.model.shown import ShownFailure, ShownTotals


@dataclass(frozen=True, kw_only=True, slots=True)
class StepDefinition:
    """One step of a pipeline as it was at the claim."""

    name: str
    worker: str
    options: dict[str, Any]  #: as written, with placeholders
    source: str = ""  #: name of the earlier step whose output it takes; "" for the payload
    #: names of the earlier steps that must be done before it; None: every one, as jobs had it once
    needs: tuple[str, ...] | None = None
    purpose: str = ""  #: what it is for, which folders can ask for; "" for every folder

    def as_dict(self) -> dict[str, Any]:
        """Return it as the store keeps it and the API shows it."""
        return {
            "name": self.name,
            "worker": self.worker,
            "from": self.source,
            **({} if self.needs is None else {"needs": list(self.needs)}),
            "for": self.purpose,
            "options": self.options,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """Why a folder was refused before its first step; all three are sentences or places for people."""

    what: str
    where: str
    hint: str

    def as_dict(self) -> dict[str, str]:
        """Return it as the store keeps it."""
        return {"what": self.what, "where": self.where, "hint": self.hint}


@dataclass(frozen=True, kw_only=True, slots=True)
class Ignored:
    """What of a folder no step is given, by the pipeline's `ignore`."""

    files: int = 0
    size: int = 0  #: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class JobDefinition:
    """What a job is to do, copied from config.yaml at its claim."""

    steps: tuple[StepDefinition, ...] = ()
    purposes: tuple[str, ...] = ()  #: what the folder asked for; empty: everything
    skips_links: bool = False  #: links and special files are left out, and end nothing
    ignore: tuple[str, ...] = ()  #: patterns of names that no step is given
    keep_work_s: float | None = None  #: how long work/ is kept after the end; None: forever
    ignored: Ignored = Ignored()
    refusal: Refusal | None = None  #: it has no steps to be tried, for this reason

    def step(self, name: str) -> StepDefinition | None:
        """Return the step of a name, None where there is none."""
        return next((one for one in self.steps if one.name == name), None)

    def as_dict(self) -> dict[str, Any]:
        """Return it as the store keeps it and the API shows it."""
        if self.refusal is not None:
            return {"steps": [one.as_dict() for one in self.steps], "refuse": self.refusal.as_dict()}
        ignored = {"ignored": {"files": self.ignored.files, "bytes": self.ignored.size}}
        return {
            "steps": [one.as_dict() for one in self.steps],
            "purposes": list(self.purposes),
            "links": "skip" if self.skips_links else "refuse",
            "ignore": list(self.ignore),
            "keep_work_s": self.keep_work_s,
            **(ignored if self.ignored.files else {}),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """Why a job has failed."""

    what: str
    where: str = ""
    hint: str = ""
    kind: str = "item"  #: item, target, transient, defect, changed, cancelled
    step: str = ""  #: "" outside of all steps
    files: tuple[str, ...] = field(default=())  #: those at fault, as `model.paths` writes paths

    def as_dict(self) -> ShownFailure:
        """Return it as the store keeps it and the API shows it."""
        found: ShownFailure = {
            "what": self.what, "where": self.where, "hint": self.hint, "kind": self.kind, "step": self.step,
        }  # fmt: skip
        if self.files:
            found["files"] = list(self.files)
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTotals:
    """What a step that is done has come to."""

    detail: str = ""  #: for people
    outputs: int = 0  #: files made
    size: int = 0  #: bytes of these
    locations: int = 0  #: files and records delivered, and verified there
    copies: int = 0  #: of these, copies of files
    delivered_size: int = 0  #: bytes of these
    seconds: float = 0.0  #: how long the last try took
    recipe: Mapping[str, Any] | None = None  #: what decides the result (`Recipe.as_dict`); None: not recorded

    def as_dict(self) -> ShownTotals:
        """Return it as the store keeps it and the API shows it; {} of a step that is not done."""
        if self == StepTotals():
            return {}
        found: ShownTotals = {
            "detail": self.detail,
            "outputs": self.outputs,
            "bytes": self.size,
            "locations": self.locations,
            "copies": self.copies,
            "delivered_bytes": self.delivered_size,
            "seconds": self.seconds,
        }
        if self.recipe is not None:
            found["recipe"] = self.recipe
        return found


def read_totals(found: Mapping[str, Any]) -> StepTotals:
    """Return totals from what the store has. Raises: TypeError, ValueError: nobody wrote it so."""
    recipe = found.get("recipe")
    if recipe is not None and not (
        isinstance(recipe["settings"], dict) and isinstance(recipe["tools"], dict)
    ):
        raise TypeError("a recipe is settings and tools")
    locations = int(found.get("locations", 0))
    return StepTotals(
        detail=_text(found.get("detail", "")),
        outputs=int(found.get("outputs", 0)),
        size=int(found.get("bytes", 0)),
        locations=locations,
        copies=int(found.get("copies", locations)),
        delivered_size=int(found.get("delivered_bytes", 0)),
        seconds=float(found.get("seconds", 0.0)),
        recipe=recipe,
    )


def read_definition(found: Any) -> JobDefinition:
    """Return a definition from what the store has. Raises: TypeError, KeyError, ValueError: it is wrong."""
    if not isinstance(found, Mapping):
        raise TypeError("a definition is an object")
    refusal = found.get("refuse")
    ignored = found.get("ignored", {})
    keep_work_s = found.get("keep_work_s")
    return JobDefinition(
        steps=tuple(_step(one) for one in _sequence(found["steps"])),
        purposes=tuple(_text(one) for one in _sequence(found.get("purposes", ()))),
        skips_links=found.get("links") == "skip",
        ignore=tuple(_text(one) for one in _sequence(found.get("ignore", ()))),
        keep_work_s=None if keep_work_s is None else float(keep_work_s),
        ignored=Ignored(files=int(ignored.get("files", 0)), size=int(ignored.get("bytes", 0))),
        refusal=None if refusal is None else _refusal(refusal),
    )


def read_failure(found: Any) -> Failure:
    """Return a failure from what the store has. Raises: TypeError, KeyError: nobody wrote it so."""
    return Failure(
        what=_text(found["what"]),
        where=_text(found["where"]),
        hint=_text(found["hint"]),
        kind=_text(found["kind"]),
        step=_text(found["step"]),
        files=tuple(one for one in found.get("files", ()) if isinstance(one, str)),
    )


def _refusal(found: Mapping[str, Any]) -> Refusal:
    return Refusal(what=_text(found["what"]), where=_text(found["where"]), hint=_text(found["hint"]))


def _step(found: Mapping[str, Any]) -> StepDefinition:
    options = found["options"]
    if not isinstance(options, dict):
        raise TypeError("options are an object")
    needs = None if "needs" not in found else tuple(_text(one) for one in _sequence(found["needs"]))
    return StepDefinition(
        name=_text(found["name"]),
        worker=_text(found["worker"]),
        options=options,
        source=_text(found.get("from", "")),
        needs=needs,
        purpose=_text(found.get("for", "")),
    )


def _text(found: Any) -> str:
    if not isinstance(found, str):
        raise TypeError("this is text")
    return found


def _sequence(found: Any) -> Sequence[Any]:
    if not isinstance(found, list | tuple):
        raise TypeError("this is a list")
    return found
