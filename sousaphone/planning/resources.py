"""Resources of a trial."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Resources:
    """Resources of each trial, and the maximum of trials at a time (None: as many as fit)."""

    cpus_per_trial: float
    gpus_per_trial: float
    max_concurrent: int | None
    device: str = "cpu"

    @property
    def request(self) -> dict[str, float]:
        """Ray's resource request; Ray does not detect a Mac's GPU, so a custom resource, "mps", represents it."""
        amounts = {"CPU": self.cpus_per_trial, "GPU": self.gpus_per_trial, "mps": float(self.device == "mps")}
        return {name: amount for name, amount in amounts.items() if amount}
