"""Sends folders to a dittohead inbox over SFTP. It needs Python and asyncssh, and nothing of dittohead itself."""

from __future__ import annotations

__version__ = "0.2.0"
