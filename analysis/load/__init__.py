"""Read a run from disk: Ray's log, trial records and predictions."""
