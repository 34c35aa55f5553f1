"""Recordings decoded and resampled once, into files that are mapped into memory."""
