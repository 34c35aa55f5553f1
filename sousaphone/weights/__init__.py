"""Where pretrained weights come from, and how we know which ones a trial started from.

`resolve` turns `--weights` into a path, `locate` knows where files lie, `network` fetches what is missing, `identity`
says what a file is, `check` loads it. On the command line: `python -m sousaphone.weights`.
"""

from sousaphone.weights.identity import RANDOM, content_fingerprint, fingerprint, record_of
from sousaphone.weights.resolve import resolve, resolve_all

__all__ = ["RANDOM", "content_fingerprint", "fingerprint", "record_of", "resolve", "resolve_all"]
