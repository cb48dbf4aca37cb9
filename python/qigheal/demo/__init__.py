"""The demo: a small real service to be watched and healed.

`repository` makes a git repository of the service in `digits-host/`, which is package data: it is copied,
never imported from here. What the demo does with it stays out of this package's `__init__`, so that
importing it costs nothing.
"""
