"""Caches hot functions that are proved pure.

latency    the strategy
purity     the proof that a function gives the same behind a cache
secrecy    whose arguments are secrets, by their names
edits      the lines that cache
"""
