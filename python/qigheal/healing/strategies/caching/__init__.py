"""Caches hot functions that are proved pure.

latency    the strategy
purity     the proof: bodies walks a function, hashable its arguments, kinds says what can be changed
sources    the host's files, and where a name in them leads
allowed    what a pure function may call
"""
