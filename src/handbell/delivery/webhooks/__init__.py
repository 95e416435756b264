"""Webhooks: signed calls to an app's back end about failures, lost devices and outages.

In: events, stored in the transaction of the outcome. Out: signed HTTP calls.
Promise: each stored call is retried until the receiver accepts it, for up to three days.
"""
