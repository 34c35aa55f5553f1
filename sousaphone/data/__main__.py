"""python -m sousaphone.data: see `sousaphone.cli.data`."""

import sys

from sousaphone.cli.data import main

if __name__ == "__main__":
    sys.exit(main())
