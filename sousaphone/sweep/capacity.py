"""CPUs and GPUs available to trials, on this machine or on the cluster at RAY_ADDRESS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import ray

from sousaphone.config import Sweep
from sousaphone.errors import UserError
from sousaphone.hardware import cluster_address, shares
from sousaphone.planning.resources import Resources
from sousaphone.planning.sweep_options import Request
from sousaphone.sweep.ray_process import Runtime


@dataclass(frozen=True)
class Capacity:
    """Ray resources of each machine: of this one, or of the nodes of the cluster at RAY_ADDRESS."""

    machines: tuple[Mapping[str, float], ...]
    where: str = "this machine"

    @classmethod
    def find(cls, cpus: int, gpus: int, device: str, runtime: Runtime) -> Capacity:
        """Return the capacity of this machine, given by the arguments, or of the cluster, for which Ray is started."""
        if cluster_address() is None:
            return cls(({"CPU": cpus, "GPU": gpus, "mps": float(device == "mps")},))
        runtime.start()
        runtime.wait()
        return cls(tuple(node["Resources"] for node in runtime.call(ray.nodes) if node["Alive"]), "the cluster")

    def most(self, name: str) -> float:
        """Return the maximum of a resource on one machine; a trial never spans two."""
        return max((machine.get(name, 0.0) for machine in self.machines), default=0.0)

    def trials_at_once(self, resources: Resources, trials: int) -> int:
        """Return how many of the trials run at a time."""
        fits = sum(
            min((shares(machine.get(name, 0.0), amount) for name, amount in resources.request.items()), default=trials)
            for machine in self.machines
        )
        return min(trials, fits, trials if resources.max_concurrent is None else resources.max_concurrent)

    def check(self, resources: Resources) -> None:
        """Raise a UserError if a trial needs more than any machine has, or an amount that Ray cannot assign."""
        gpus = resources.gpus_per_trial
        if gpus > 1 and gpus != int(gpus):
            raise UserError(f"--gpus-per-trial {gpus:g} is neither a fraction of a GPU nor a whole number; give 1")
        options = {"CPU": "--cpus-per-trial", "GPU": "--gpus-per-trial"}
        for name, amount in resources.request.items():
            most = self.most(name)
            if amount <= most:
                continue
            if name not in options:
                raise UserError(
                    f"a trial on {name} needs the Ray resource {name!r}, which {self.where} does not declare; "
                    f"""start its nodes with --resources='{{"{name}": 1}}'"""
                )
            has = f"{self.where} has {most:g}" + (" on any one node" if len(self.machines) > 1 else "")
            remedy = f"give {options[name]} {most:g} or less" if most else "leave it out"
            raise UserError(f"{options[name]} {amount:g} is too much: {has}; {remedy}")
        if self.trials_at_once(resources, 1) < 1:
            raise UserError(f"no node of {self.where} has all resources of a trial, {resources.request}; give less")


def pick_resources(request: Request, sweep: Sweep, capacity: Capacity) -> Resources:
    """Return the resources given on the command line, else those of the sweep, after `Capacity.check`."""
    cpus = sweep.cpus_per_trial if request.cpus_per_trial is None else request.cpus_per_trial
    gpus = sweep.gpus_per_trial if request.gpus_per_trial is None else request.gpus_per_trial
    limit = sweep.max_concurrent if request.max_concurrent is None else request.max_concurrent
    resources = Resources(cpus, gpus, limit, request.device)
    capacity.check(resources)
    return resources
