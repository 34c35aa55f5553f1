"""Deploy cards: the costs of trained models in each runtime, and their accuracy. Stored in a run's deployment.json."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from annotated_types import Ge, Le, Len

from sousaphone.files import write_json
from sousaphone.runs import schema

DEPLOYMENT_NAME = "deployment.json"
_SCHEMA = 1
Runtime = Literal["torch", "onnx", "int8"]
TITLES: dict[Runtime, str] = {"torch": "PyTorch", "onnx": "ONNX Runtime", "int8": "ONNX Runtime, int8 weights"}


@dataclass(frozen=True)
class Latency:
    """Time from the waveform of one window to its logits, milliseconds."""

    __pydantic_config__ = schema.STRICT
    threads: schema.Count
    median: schema.Seconds
    p95: schema.Seconds  # 95th percentile
    repeats: schema.Count


@dataclass(frozen=True)
class RuntimeCost:
    """Costs of a model in a runtime on a CPU, and its accuracy on the centre windows of the run's test clips."""

    __pydantic_config__ = schema.STRICT
    runtime: Runtime
    accuracy: Annotated[float, Ge(0), Le(1)] | None  # None: not measured
    clips: schema.Count  # test clips
    latencies: Annotated[tuple[Latency, ...], Len(1, 10)]  # with one thread first, then with all
    load_seconds: schema.Seconds  # import of the runtime, and loading of the model
    disk_bytes: schema.Count  # of the graph; for PyTorch, of the tensors, adapters added to the base weights
    memory_bytes: schema.Count  # resident memory of a process that has loaded the model and scored windows
    precision: Literal["float32", "bfloat16"] = "float32"  # of activations


@dataclass(frozen=True)
class DeployCard:
    """The costs of a trial's model in each runtime."""

    __pydantic_config__ = schema.STRICT
    trial: schema.Text  # several for an ensemble
    clip_seconds: Annotated[float, Ge(1e-3), Le(60)]  # length of a window
    cpu: schema.Text
    costs: Annotated[tuple[RuntimeCost, ...], Len(1, 10)]
    remark: schema.Text = ""  # why something was not measured
    busy: Annotated[int, Ge(0), Le(100)] = 0  # % of the processor used by other programs, if that lengthens times

    def __post_init__(self) -> None:
        runtimes = [cost.runtime for cost in self.costs]
        if len(set(runtimes)) < len(runtimes) or set(runtimes) == {"int8"}:
            raise ValueError(
                f"it has the runtimes {', '.join(runtimes)}, not each once, one of them with float32 weights"
            )

    @property
    def remarks(self) -> str:
        """What limits the measurement, in sentences; empty if nothing does."""
        busy = f"Other programs used {self.busy} % of the processor, so the times may be too long."
        return f"{busy} {self.remark}".strip() if self.busy else self.remark

    @property
    def fastest(self) -> RuntimeCost:
        """The runtime with the lowest latency on one thread, of those with float32 weights."""
        return min((cost for cost in self.costs if cost.runtime != "int8"), key=lambda cost: cost.latencies[0].median)


@dataclass(frozen=True)
class Deployment:
    """The deploy cards of a run."""

    __pydantic_config__ = schema.STRICT
    cards: Annotated[tuple[DeployCard, ...], Len(0, schema.MOST_TRIALS)]

    def write(self, run_path: Path) -> None:
        """Write deployment.json to the run's directory, atomically."""
        content = {"schema": _SCHEMA, **dataclasses.asdict(self)}
        write_json(run_path / DEPLOYMENT_NAME, content, indent=1, allow_nan=False)

    @classmethod
    def read(cls, run_path: Path) -> Self:
        """Read the cards of a run, none if they were not measured; raise a ValueError if they are damaged."""
        path = run_path / DEPLOYMENT_NAME
        if not path.is_file():
            return cls(())
        found: Self = schema.read(path, cls, _SCHEMA)
        return found


COLUMNS = (
    *("runtime", "test accuracy", "1 thread, ms (p95)", "all threads, ms (p95)", "real-time factor"),
    *("load, s", "disk, MB", "memory, MB"),
)


def explanation(card: DeployCard) -> str:
    """What the columns mean, in sentences."""
    clips = max(cost.clips for cost in card.costs)
    threads = card.costs[0].latencies[-1].threads
    return (
        f"Test accuracy: of the centre windows of {clips:,} test clips. Times: of one window of {card.clip_seconds:g} "
        f"s, from waveform to logits, median and 95th percentile, on {card.cpu} ({threads} threads in all). Real-time "
        "factor: time of one thread per second of audio. Load: import of the runtime and loading of the model. "
        "Disk: the ONNX graph; for PyTorch, all tensors, adapters added to the base weights. Memory: of the whole "
        "process."
    )


def row(card: DeployCard, cost: RuntimeCost) -> tuple[str, ...]:
    """The costs of a runtime as a row of a table with these `COLUMNS`."""
    times = [f"{each.median:,.1f} ({each.p95:,.1f})" for each in (cost.latencies[0], cost.latencies[-1])]
    return (
        TITLES[cost.runtime] + (f", {cost.precision}" if cost.precision != "float32" else ""),
        "–" if cost.accuracy is None else f"{cost.accuracy:.1%}",
        *times,
        f"{cost.latencies[0].median / 1000 / card.clip_seconds:.4f}",
        f"{cost.load_seconds:.1f}",
        f"{cost.disk_bytes / 1e6:,.1f}",
        f"{cost.memory_bytes / 1e6:,.0f}",
    )
