"""The client of the API: transports, typed calls, informers, work queues, leader election.

The one way by which controllers, scheduler, node agents and the platform speak to the API server. It knows `core.api` and nothing else of ours.
"""
