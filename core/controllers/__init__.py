"""The controllers of the core: each brings the cluster nearer to what objects say, through the API alone.

Each has pure functions that decide from a snapshot and `now`, and a thin class with informers, a queue and `sync(key)`.
They must not know of functions, nor of each other.
"""
