"""`python -m dittohead`: the command line."""

from __future__ import annotations

from dittohead.cli import main

main(prog_name="dittohead")
