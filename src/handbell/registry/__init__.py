"""Users and their sessions: who is reached where."""
