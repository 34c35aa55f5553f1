"""The files of a run: run directory, trial records, statuses, provenance, baseline results."""
