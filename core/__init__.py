"""The cluster core: a Kubernetes-compatible control plane and node agent.

Nothing in here knows what a function is; `Function` reaches it as a CustomResourceDefinition.
"""
