"""Calls as durable records: the protocol (`base`), its implementations, and the dispatcher that executes what is due."""
