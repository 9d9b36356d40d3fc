"""Sends folders to a dittohead inbox over SFTP. It needs asyncssh, and nothing of dittohead."""

from __future__ import annotations

__version__ = "0.2.0"
