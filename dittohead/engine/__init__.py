"""From the claim to done/ or failed/: whose folder is next, its steps, their results, its end."""
