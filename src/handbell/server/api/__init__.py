"""The HTTP API: one module for each noun, each with its `router`."""
