"""Logs and metrics, as hooks on events.

In: events. Out: log lines and Prometheus metrics.
Promise: no contents, keys or tokens; a failure here never stops a send.
"""
