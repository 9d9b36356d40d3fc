"""rsync: deliver to a local path or over ssh, and verify there."""
