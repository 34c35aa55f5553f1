"""Pretrained weights: their sources, and the identity of the files that a trial starts from.

`resolve` turns `--weights` into a path, `locate` finds local files, `download` fetches missing ones, `identity`
identifies a file, `check` loads it. On the command line: `python -m sousaphone.weights`.
"""

from sousaphone.weights.identity import RANDOM, content_fingerprint, fingerprint, record_of
from sousaphone.weights.resolve import resolve_all

__all__ = ["RANDOM", "content_fingerprint", "fingerprint", "record_of", "resolve_all"]
