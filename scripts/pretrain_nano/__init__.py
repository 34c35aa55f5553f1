"""Pretrain weights of the nano backbones without using the 40 rudiments: `python -m scripts.pretrain_nano`.

    motifs -> sounds (player, drum and room of each clip) -> waves (rendered once) -> examples -> learn

A backbone learns to distinguish random stroke patterns across players, tempi, drums and rooms. A sweep with
`python launch.py --weights NAME=PATH` measures the effect on rudiments.
"""
