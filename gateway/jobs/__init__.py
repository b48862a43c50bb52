"""The jobs process: the queue of calls and their records, cron, the package store, and the HTTP that reaches them.

It never proxies a synchronous call: calls that it makes go through the gateway like anybody's.
"""
