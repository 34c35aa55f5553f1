"""What a trial takes of a machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Resources:
    """What one trial takes, and how many may run at once (None: as many as fit)."""

    cpus_per_trial: float
    gpus_per_trial: float
    max_concurrent: int | None
    device: str = "cpu"

    @property
    def request(self) -> dict[str, float]:
        """As Ray counts it. A Mac has one GPU that Ray knows nothing of: a resource of our own stands for it."""
        asked = {"CPU": self.cpus_per_trial, "GPU": self.gpus_per_trial, "mps": float(self.device == "mps")}
        return {name: amount for name, amount in asked.items() if amount}
