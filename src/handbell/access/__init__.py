"""Who may do what: API keys, operators, and the audit trail."""
