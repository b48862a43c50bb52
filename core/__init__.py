"""The cluster core: a Kubernetes-compatible control plane and node agent.

Nothing in here knows what a function is; `Function` reaches it as a CustomResourceDefinition.
"""

__version__ = "0.1.0"
"""Of the distribution, which reads it here."""
