"""What an admin asks for: actions, views, doctor, dry run, verify, undo, rebuild, and the watch over the daemon."""
