"""Cron: which instants are due (`planner`, pure), and the loop that claims them in time (`ticker`)."""
