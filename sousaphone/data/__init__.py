"""Data pipeline, from recordings on disk to batches of waveforms.

`readers` reads a data set of any layout into the table of `dataset`; `synthetic` generates one; `splits` assigns splits
and draws subsets; `cache` decodes and resamples the clips once; `prepare` combines these for a trial; `batches` serves
the clips. `inspect` describes and checks a data set.
"""
