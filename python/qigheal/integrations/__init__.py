"""The hosts' side: what puts the monitor and its routes into an application.

Each module needs the framework that it is named for, and none of them does anything when it is imported.
"""
