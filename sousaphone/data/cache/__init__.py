"""Clips decoded and resampled once, into memory-mapped files."""
