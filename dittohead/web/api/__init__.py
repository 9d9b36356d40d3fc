"""What programs ask: operations, their shapes, openapi.json."""
