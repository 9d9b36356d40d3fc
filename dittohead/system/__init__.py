"""What the operating system gives: files, processes, threads, users, locks, mounts, the log."""
