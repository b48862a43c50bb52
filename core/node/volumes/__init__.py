"""Volumes of Pods: a file per type, one table (`table.py`), and the manager that prepares, updates and removes them.

A volume is a folder or file on the host that is bind-mounted into containers; nothing here mounts anything itself.
"""
