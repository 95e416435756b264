"""Notifications and recipients: pure, validated values, without any I/O."""
