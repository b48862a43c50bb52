"""What the Kubernetes API is made of, as data: kinds, metadata, quantities, selectors, typed views.

This package does no I/O and imports nothing else of ours (but `core.errors` and `core.clock`).
"""
