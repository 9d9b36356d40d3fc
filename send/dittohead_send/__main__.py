"""`python -m dittohead_send`."""

from __future__ import annotations

from dittohead_send.cli import main

if __name__ == "__main__":
    main()
