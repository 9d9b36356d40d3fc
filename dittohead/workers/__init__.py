"""Workers: one kind of step each, found by name through the entry-point group dittohead.workers."""
