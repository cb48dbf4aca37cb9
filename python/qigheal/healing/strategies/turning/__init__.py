"""Turns levers that the host declares: for Φ and κ, and for drift. `levers` and `search` are what both use."""
