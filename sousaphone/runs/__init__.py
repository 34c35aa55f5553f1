"""What is on disk: run directory, trial records, statuses, provenance, baseline results."""
