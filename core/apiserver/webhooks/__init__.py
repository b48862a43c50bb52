"""Admission webhooks: the configurations that the store holds, matched, asked, and obeyed.

`hooks` (which webhook wants to see what; pure) -> `reviews` (questions and answers; pure) -> `calls` (HTTPS) -> `chain` (in which order, and
what an answer means).
"""
