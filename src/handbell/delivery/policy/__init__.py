"""Decide: what an answer means, when to send again, what an app's rules and circuits allow.

In: values (an outcome, an attempt, an instant, an app's rules). Out: decisions, as values.
Promise: pure, the clock and chance are passed in; only ``rules_store`` knows the database.
"""
