"""Recordings on disk to batches of waveforms. The modules, in the order the data flows:

`sousa` reads a data set of any form (`csv_labels`, `parquet_shards`, `folder`, `hub`) into the one table of `index`;
`generate` makes one for a machine without data (`players`, `soundfonts`, `render`); `splits` assigns and draws clips;
`cache` decodes and resamples them once; `batches` serves them. `shortcuts` measures what gives a class away.
"""
