"""submit: a package to a preservation service, and the wait for its answer."""
