"""Kill a run at every write to its files and compare what a resume leaves: `python -m tests.faults --help`."""
