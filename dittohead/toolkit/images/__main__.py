"""The child program that touches images: `python -m dittohead.toolkit.images`."""

from __future__ import annotations

from dittohead.toolkit.images.child import main

main()
