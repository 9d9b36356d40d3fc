"""The child program that touches images: `python -m dittohead.images`."""

from __future__ import annotations

from dittohead.images.child import main

main()
