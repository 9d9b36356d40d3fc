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
    "Inputs",
    "ItemError",
    "Location",
    "Options",
    "Output",
    "Recipe",
    "StepContext",
    "StepError",
    "StepResult",
    "TargetError",
    "TransientError",
    "VerifyContext",
    "Wait",
    "Worker",
    "__version__",
]
