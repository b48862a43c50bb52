"""The function platform: Function models, controllers, packaging, launch. Speaks only the Kubernetes API to the core."""
