"""python -m analysis: see `sousaphone.cli.report`."""

import sys

from sousaphone.cli.report import main

if __name__ == "__main__":
    sys.exit(main())
