"""The facts of each push service: what it publishes, its addresses, credentials and reasons."""
