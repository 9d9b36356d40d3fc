"""The configuration of tests that are not about how long a folder waits: what they drop is whole."""

from __future__ import annotations

import textwrap


def at_once(config: str) -> str:
    """Return a configuration, dedented, by which folders are taken at once, where it does not say when."""
    text = textwrap.dedent(config)
    if "settle:" in text or not text.strip():
        return text
    if "watch: {" in text:
        return text.replace("watch: {", "watch: {settle: 0, ", 1)
    return f"{text}\nwatch: {{settle: 0}}\n"
