"""Readers of all data set layouts; `sousa.read_dataset` selects the reader."""
