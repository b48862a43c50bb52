"""Functions on this machine without a cluster: instances in processes of their own, a small gateway, calls and cron in memory.

User code never shares an interpreter with the platform: it runs in the shim that clusters run, without the platform's packages.
"""
