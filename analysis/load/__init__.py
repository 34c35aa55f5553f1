"""What is on disk, put together: trials, Ray's log, predictions."""
