"""What connects the package with other people's frameworks; each room imports its own, when it is imported."""
