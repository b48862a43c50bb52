"""The store: bytes under keys with one global revision, and a watch over them.

Known to the API server alone. It knows nothing of kinds, JSON or namespaces.
"""
