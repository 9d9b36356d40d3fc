"""command: a site's own program as a step."""
