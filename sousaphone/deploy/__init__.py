"""The use of a trained model: a folder to hand over, predictions for recordings, evaluation on labelled ones.

`export` writes a model folder from a run; `predictor` loads one (or a run, or a repository of the hub) and names the
rudiments of recordings; `evaluation` scores it on labelled ones; `page` shows its answers in a browser; `publish`
uploads it. On the command line: `sousaphone export`, `predict`, `evaluate`, `serve` and `publish`.
"""
