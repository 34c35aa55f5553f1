"""Check the Python version. All metadata are in setup.cfg, but an old pip rejects the locked versions before it reads
`python_requires`."""

import sys

from setuptools import setup

if not (3, 11) <= sys.version_info[:2] <= (3, 14):
    here = ".".join(map(str, sys.version_info[:2]))
    sys.exit(
        f"SOUSAphone needs Python 3.11 to 3.14, and this is {here}; use another, such as `python3.12 -m venv .venv`"
    )

setup()
