"""The controllers of the platform: they turn Functions into Services and ReplicaSets, through the Kubernetes API alone."""
