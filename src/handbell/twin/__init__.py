"""Apple's side, for development: an APNs server that can misbehave, and virtual phones."""
