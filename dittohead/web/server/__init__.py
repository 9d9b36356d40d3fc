"""Who may come in, and what every request goes through."""
