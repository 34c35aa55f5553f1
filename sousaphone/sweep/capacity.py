"""What there is to run trials on: this machine, or the cluster named by RAY_ADDRESS."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import ray

from sousaphone.config import Sweep
from sousaphone.errors import UserError
from sousaphone.hardware import shares
from sousaphone.planning.resources import Resources
from sousaphone.planning.sweep_options import Request
from sousaphone.sweep.ray_process import Runtime


@dataclass(frozen=True)
class Capacity:
    """What there is to run on, by machine: this one, or those of the cluster named by RAY_ADDRESS."""

    machines: tuple[Mapping[str, float], ...]
    where: str = "this machine"

    @classmethod
    def find(cls, cpus: int, gpus: int, device: str, runtime: Runtime) -> Capacity:
        """
        Args:
            cpus, gpus, device: this machine's.
            runtime: started, where it is a cluster that is asked.

        Raises:
            UserError: RAY_ADDRESS does not answer.
        """
        if "RAY_ADDRESS" not in os.environ:
            return cls(({"CPU": cpus, "GPU": gpus, "mps": float(device == "mps")},))
        runtime.start()
        runtime.wait()
        return cls(tuple(node["Resources"] for node in runtime.call(ray.nodes) if node["Alive"]), "the cluster")

    def most(self, name: str) -> float:
        """The most that one machine has of a resource; a trial never spans two."""
        return max((machine.get(name, 0.0) for machine in self.machines), default=0.0)

    def trials_at_once(self, resources: Resources, trials: int) -> int:
        """How many trials run at once."""
        fits = sum(
            min((shares(machine.get(name, 0.0), amount) for name, amount in resources.request.items()), default=trials)
            for machine in self.machines
        )
        return min(trials, fits, trials if resources.max_concurrent is None else resources.max_concurrent)

    def check(self, resources: Resources) -> None:
        """
        Raises:
            UserError: more than any machine has, or what Ray cannot give, so that no trial could ever start.
        """
        gpus = resources.gpus_per_trial
        if gpus > 1 and gpus != int(gpus):
            raise UserError(f"--gpus-per-trial {gpus:g} is neither a share of one GPU nor a number of them; give 1")
        options = {"CPU": "--cpus-per-trial", "GPU": "--gpus-per-trial"}
        for name, amount in resources.request.items():
            most = self.most(name)
            if amount <= most:
                continue
            if name not in options:
                raise UserError(
                    f"a trial on {name} asks Ray for its resource {name!r}, which {self.where} does not declare; "
                    f"""start its nodes with --resources='{{"{name}": 1}}'"""
                )
            has = f"{self.where} has {most:g}" + (" on any one node" if len(self.machines) > 1 else "")
            raise UserError(f"{options[name]} {amount:g} is too much: {has}; give {options[name]} {most:g} or less")
        if self.trials_at_once(resources, 1) < 1:
            raise UserError(f"no single node of {self.where} has all that a trial asks for, {resources.request}")


def pick_resources(request: Request, sweep: Sweep, capacity: Capacity) -> Resources:
    """The command line's resources, else the sweep's.

    Raises:
        UserError: more than there is, so that no trial could ever start.
    """
    cpus = sweep.cpus_per_trial if request.cpus_per_trial is None else request.cpus_per_trial
    gpus = sweep.gpus_per_trial if request.gpus_per_trial is None else request.gpus_per_trial
    limit = sweep.max_concurrent if request.max_concurrent is None else request.max_concurrent
    resources = Resources(cpus, gpus, limit, request.device)
    capacity.check(resources)
    return resources
