"""Decide: what an outcome means, when to retry, what an app's rules and circuits allow.

In: values (an outcome, an attempt, an instant, an app's rules). Out: decisions, as values.
Promise: pure, clock and randomness are passed in; only ``rules_store`` accesses the database.
"""
