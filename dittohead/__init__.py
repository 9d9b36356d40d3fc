"""dittohead: carries folders dropped in an inbox through a pipeline without losing a byte.

Its names are imported when they are first used: a command that asks the daemon needs none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dittohead.contract.catalogue import Catalogue, Keep, Leaving, Listing, Told
    from dittohead.contract.source import (
        Command,
        Fetch,
        Item,
        Look,
        Order,
        Panel,
        Sighting,
        Source,
        SourceOptions,
        Upstream,
    )
    from dittohead.contract.worker import (
        Done,
        Freeze,
        Inputs,
        Made,
        Options,
        Planned,
        Recipe,
        Remake,
        StepContext,
        StepResult,
        UndoContext,
        VerifyContext,
        Wait,
        Worker,
    )
    from dittohead.model.description import Described, Description
    from dittohead.model.errors import (
        ConfigError,
        DittoheadError,
        ItemError,
        SourceStopped,
        StepError,
        TargetError,
        TransientError,
    )
    from dittohead.model.events import Event, EventType
    from dittohead.model.records import Entry, Location, Output, Use
    from dittohead.system.files import durable_file, sha256_file
    from dittohead.system.process import Completed, run
    from dittohead.system.threads import Stop, in_thread

__version__ = "0.2.0"

#: Where the public names are, for those who run it; the imports above say the same to type checkers.
_MODULES = {
    "dittohead.model.description": ("Described", "Description"),
    "dittohead.model.errors": (
        "ConfigError",
        "DittoheadError",
        "ItemError",
        "SourceStopped",
        "StepError",
        "TargetError",
        "TransientError",
    ),
    "dittohead.system.files": ("durable_file", "sha256_file"),
    "dittohead.model.events": ("Event", "EventType"),
    "dittohead.model.records": ("Entry", "Location", "Output", "Use"),
    "dittohead.system.process": ("Completed", "run"),
    "dittohead.contract.catalogue": ("Catalogue", "Keep", "Leaving", "Listing", "Told"),
    "dittohead.contract.source": (
        "Command",
        "Fetch",
        "Item",
        "Look",
        "Order",
        "Panel",
        "Sighting",
        "Source",
        "SourceOptions",
        "Upstream",
    ),
    "dittohead.system.threads": ("Stop", "in_thread"),
    "dittohead.contract.worker": (
        "Done",
        "Freeze",
        "Inputs",
        "Made",
        "Options",
        "Planned",
        "Recipe",
        "Remake",
        "StepContext",
        "StepResult",
        "UndoContext",
        "VerifyContext",
        "Wait",
        "Worker",
    ),
}

_PLACES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Return a public name, imported at its first use. Raises: AttributeError: there is no such name."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(_PLACES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """Return the names that are there, and those that would be imported."""
    return sorted({*globals(), *__all__})


__all__ = [
    "Catalogue",
    "Command",
    "Completed",
    "ConfigError",
    "Described",
    "Description",
    "DittoheadError",
    "Done",
    "Entry",
    "Event",
    "EventType",
    "Fetch",
    "Freeze",
    "Inputs",
    "Item",
    "ItemError",
    "Keep",
    "Leaving",
    "Listing",
    "Location",
    "Look",
    "Made",
    "Options",
    "Order",
    "Output",
    "Panel",
    "Planned",
    "Recipe",
    "Remake",
    "Sighting",
    "Source",
    "SourceOptions",
    "SourceStopped",
    "StepContext",
    "StepError",
    "StepResult",
    "Stop",
    "TargetError",
    "Told",
    "TransientError",
    "UndoContext",
    "Upstream",
    "Use",
    "VerifyContext",
    "Wait",
    "Worker",
    "__version__",
    "durable_file",
    "in_thread",
    "run",
    "sha256_file",
]
