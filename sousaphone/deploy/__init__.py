"""What is handed over after a sweep: a trained model as a folder, its predictions and its evaluation.

`export` writes a model folder from a run; `predictor` loads one (or a run, or a repository of the hub) and names the
rudiments of recordings; `evaluation` scores it on labelled ones. On the command line: `sousaphone export`, `predict`
and `evaluate`.
"""
