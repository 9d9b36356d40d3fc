"""dittohead: carries folders dropped in an inbox through a pipeline without losing a byte."""

from __future__ import annotations

from dittohead.errors import (
    ConfigError,
    DittoheadError,
    ItemError,
    StepError,
    TargetError,
    TransientError,
)
from dittohead.model import Entry, Event, EventType, Location, Output
from dittohead.source import Fetch, Item, Look, Order, Sighting, Source, SourceOptions, Upstream
from dittohead.worker import (
    Done,
    Inputs,
    Options,
    Recipe,
    StepContext,
    StepResult,
    VerifyContext,
    Wait,
    Worker,
)

__version__ = "0.1.0"

__all__ = [
    "ConfigError",
    "DittoheadError",
    "Done",
    "Entry",
    "Event",
    "EventType",
    "Fetch",
    "Inputs",
    "Item",
    "ItemError",
    "Location",
    "Look",
    "Options",
    "Order",
    "Output",
    "Recipe",
    "Sighting",
    "Source",
    "SourceOptions",
    "StepContext",
    "StepError",
    "StepResult",
    "TargetError",
    "TransientError",
    "Upstream",
    "VerifyContext",
    "Wait",
    "Worker",
    "__version__",
]
