"""Turns levers that the host declares: for Φ and κ, and for drift. `levers`, `search` and `choosing` are
what both use."""
