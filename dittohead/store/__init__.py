"""The store: which step of which job is done, with what result. Each function is one transaction.

Every change of a job commits together with its events and notices. A function that changes a
job takes the run's fencing token and raises Superseded, having changed nothing, when another run
owns the job.
"""

from __future__ import annotations

from sqlalchemy.engine import Connection

from dittohead.store.database import SILENT_S, Store, sqlite_url

__all__ = ["SILENT_S", "Connection", "Store", "sqlite_url"]
