"""The way in: `worker` passes calls to functions on, `jobs` keeps calls, cron and packages.

It speaks to the cluster through the Kubernetes API alone (`core.client`), and to the autoscaler by the messages of `faaslite.api.wire`;
it must not import the core's components, the controllers or the autoscaler.
"""
