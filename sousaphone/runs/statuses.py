"""The statuses of a trial, and which of them are ends of which kind."""

from __future__ import annotations

# What a trial can come to. A trial in one of FULL_ENDS has all its results; what any other one has is partial. A run
# is a success only if every trial ended in one of GOOD_ENDS.
STATUSES = (
    "pending",
    "running",
    "completed",
    "early_stopped",
    "time_limit",
    "failed",
    "out_of_memory",
    "diverged",
    "interrupted",
)
FULL_ENDS = ("completed", "early_stopped")
GOOD_ENDS = (*FULL_ENDS, "time_limit")
# Begun again by --retry-failed. A diverged trial would diverge again: its random draws are fixed.
RETRIED = ("failed", "out_of_memory")
