"""The push services' sides, for development: servers that can misbehave, and virtual devices."""
