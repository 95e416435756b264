"""Handbell."""
