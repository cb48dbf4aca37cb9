"""Finds the commit that did it, by bisection with the probe, and proposes to take it back."""
