"""Everything about the package stands in setup.cfg. This file says which Pythons it runs on: an old pip would complain
of the locked versions before it looks at `python_requires`."""

import sys

from setuptools import setup

if not (3, 11) <= sys.version_info[:2] <= (3, 14):
    here = ".".join(map(str, sys.version_info[:2]))
    sys.exit(
        f"SOUSAphone needs Python 3.11 to 3.14, and this is {here}; use another one, as in `python3.12 -m venv .venv`"
    )

setup()
