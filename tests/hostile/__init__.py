"""Diffs that nobody should merge, and the proof that `qigheal evaluate` refuses each, saying why.

host      three small hosts with a fault: Φ, latency, errors
diffs     the diffs, by what they do
"""
