"""Adapters: each room fits the monitor to one kind of host, which is wrapped and never rewritten."""
