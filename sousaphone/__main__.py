"""Entry point of `python -m sousaphone`; see `sousaphone.cli.main`."""

import sys

from sousaphone.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
