"""Weights for the nano backbones, by a recipe that does not know the 40 rudiments: `python -m scripts.pretrain_nano`.

    motifs -> sounds (what is played, on which drum, in which room) -> waves (rendered once) -> examples -> learn

A backbone learns to tell random stroke patterns apart, across players, tempi, drums and rooms. Whether that helps it
to tell rudiments apart is measured by a sweep, `python launch.py --weights NAME=PATH`.
"""
