"""Priority and fairness: which requests run now, which wait and which are told to come back.

`schemas` (who is in which flow) -> `queues` (whose turn it is) -> `control` (the edge that makes requests wait). The objects that
configure it are FlowSchemas and PriorityLevelConfigurations, as in Kubernetes (KEP-1040); `bootstrap` has those of every cluster.

It must not look at bodies, and only `control` may wait.
"""
