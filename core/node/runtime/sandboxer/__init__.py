"""The sandboxer: one small process per node, child subreaper, parent of zygotes and Pods. It knows nothing of Kubernetes' API."""
