"""config.yaml: what it may say, read with the place of every key, and checked with all errors at once."""
