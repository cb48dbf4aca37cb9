"""Adapters: each room fits the monitor to one kind of host, which is wrapped and never rewritten.

Each module needs the framework that it is named for, and none of them does anything when it is imported.
"""
