"""The outside world, one module per protocol: models over HTTP, the offline rules, the outbox folder, SMTP.

A provider knows its protocol and nothing else: not who asks, not whether it may, not what it costs. Routing,
prices, retries and secrets are ``broker.models`` and ``broker.mail``; permission is the gate's.
"""
