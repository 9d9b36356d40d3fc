"""All that has to do with images: the child program that touches them, and what the daemon must know.

`python -m dittohead.toolkit.images` is the child (child.py); nothing else loads libvips (library.py). The
daemon imports only what decides names and options and how a child is asked.
"""
