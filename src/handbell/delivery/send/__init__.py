"""Send what is due: admit it by the app's rules, compose it, and hand it to a gateway.

In: leased deliveries and pages of broadcasts. Out: batches of pushes at gateways.
Promise: nothing goes out that a rule, a cancel, a sign-out or an open circuit forbids.
"""
