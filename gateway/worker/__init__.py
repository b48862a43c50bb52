"""The data plane: HTTP from clients to instances, and nothing else.

A request is one walk: `listener` (head, route, call) -> `activator` (a slot, or the queue) -> `pool` -> `upstream` (out to the instance, and the
reply back). It is made of callbacks; a call has no task of its own. `router` and `concurrency` hold what the informers say, `worker` joins the parts.
It must not write to the API, and must not block.
"""
