"""Images: the only rooms that import libvips, in child processes."""
