"""The configuration of tests that are not about how long a folder waits: what they drop is whole."""

from __future__ import annotations

import textwrap


def at_once(config: str) -> str:
    """Return a configuration, dedented, by which folders are taken at once, where it says nothing of it."""
    text = textwrap.dedent(config)
    return text if "watch:" in text or not text.strip() else f"{text}\nwatch: {{settle: 0}}\n"
