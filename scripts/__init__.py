"""What a maintainer runs from a checkout; not installed, and never imported by the package."""
