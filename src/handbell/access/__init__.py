"""Access control: API keys, operators, and the audit trail."""
