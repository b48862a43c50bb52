"""The composition root: makes the components of one machine, forks them, hands them their listeners, keeps them running.

The only package that may import everything; nothing imports it but the CLI, lazily.
"""
