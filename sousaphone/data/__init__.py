"""Recordings on disk to batches of waveforms. The modules, in the order the data flows:

`readers` read a data set of any form into the one table of `dataset`; `synthetic` makes one for a machine without
data; `splits` assigns and draws clips; `cache` decodes and resamples them once; `prepare` puts these together for a
trial; `batches` serves them. `inspect` says what is in a data set, and what gives a class away.
"""
