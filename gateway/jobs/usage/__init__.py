"""What namespaces have used: collected from the gateways, the queue and Pods, kept by the day."""
