"""What people read of a sweep: summary.json, the live view, report.html, explanations, webhooks.

Reads the files of a sweep; starts and decides nothing.
"""
