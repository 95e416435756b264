"""From one notification to one outcome per session."""
