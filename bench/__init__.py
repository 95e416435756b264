"""The bench: Handbell and its peers against the same sink, side by side in one run."""
