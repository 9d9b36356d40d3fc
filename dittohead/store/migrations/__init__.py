"""Alembic migrations: additive, applied at start."""
