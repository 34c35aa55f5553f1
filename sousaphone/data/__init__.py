"""Recordings on disk to batches of waveforms. The modules, in the order the data flows:

`sousa` reads a SOUSA directory, `generate` makes one for a machine without data, `splits` assigns and draws clips,
`cache` decodes and resamples them once, `batches` serves them.
"""
