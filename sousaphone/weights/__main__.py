"""python -m sousaphone.weights: see `sousaphone.cli.weights`."""

import sys

from sousaphone.cli.weights import main

if __name__ == "__main__":
    sys.exit(main())
