"""dittohead: carries folders dropped in an inbox through a pipeline without losing a byte."""

from __future__ import annotations

from dittohead.description import Described, Description
from dittohead.errors import (
    ConfigError,
    DittoheadError,
    ItemError,
    StepError,
    TargetError,
    TransientError,
)
from dittohead.files import durable_file, sha256_file
from dittohead.model import Entry, Event, EventType, Location, Output, Use
from dittohead.process import Completed, run
from dittohead.source import Fetch, Item, Look, Order, Sighting, Source, SourceOptions, Upstream
from dittohead.threads import Stop, in_thread
from dittohead.worker import (
    Done,
    Inputs,
    Made,
    Options,
    Planned,
    Recipe,
    StepContext,
    StepResult,
    UndoContext,
    VerifyContext,
    Wait,
    Worker,
)

__version__ = "0.2.0"

__all__ = [
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
    "Inputs",
    "Item",
    "ItemError",
    "Location",
    "Look",
    "Made",
    "Options",
    "Order",
    "Output",
    "Planned",
    "Recipe",
    "Sighting",
    "Source",
    "SourceOptions",
    "StepContext",
    "StepError",
    "StepResult",
    "Stop",
    "TargetError",
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
