"""Watch from outside: logs and metrics as hooks on events.

In: events. Out: log lines and Prometheus metrics.
Promise: no contents, keys or tokens; what fails here never stops a send.
"""
