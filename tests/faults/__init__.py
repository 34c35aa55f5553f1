"""Deaths at every write of a run's life, and what a resume makes of them: `python -m tests.faults --help`."""
