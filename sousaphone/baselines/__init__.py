"""Baseline results of a run: simple classifiers, and the inference time of each arm on a CPU."""
