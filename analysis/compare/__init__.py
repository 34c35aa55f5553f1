"""A run against another one, or against earlier results."""
