"""Maintainer scripts, run from a checkout; not installed, and never imported by the package."""
