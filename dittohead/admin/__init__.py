"""What an admin asks for: actions, views, doctor, dry run, verify, undo, rebuild; the watch over it all."""
