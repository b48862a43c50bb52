"""The scheduler: gives Pods to nodes. It reads through informers and writes bindings, conditions and events, nothing else."""
