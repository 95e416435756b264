"""Apps and their sealed credentials."""
