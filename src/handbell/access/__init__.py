"""Who may do what: API keys, operators, and the trail of what was changed."""
