"""Tell an app's own back end what failed, which devices are gone, and what stopped.

In: events, stored in the transaction of the outcome. Out: signed HTTP calls.
Promise: each stored call is tried until it is taken, or for three days.
"""
