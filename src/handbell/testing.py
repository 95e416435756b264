"""Fixtures for test suites that send through Handbell."""
