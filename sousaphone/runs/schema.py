"""Schemas of a run's JSON files.

A run directory may come from anybody: each file is validated where it is read, so that a wrong field is one line, no
number causes endless work, and every text can be printed. Unknown keys are ignored.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import typing
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Required

from annotated_types import Ge, Le, Len
from typing_extensions import TypedDict  # pydantic requires it before Python 3.12

from sousaphone.config import MOST_TRIALS as MOST_TRIALS
from sousaphone.config import TrainConfig, arm_of
from sousaphone.errors import printable
from sousaphone.files import read_small
from sousaphone.runs.statuses import Status

MOST_EPOCHS, MOST_NUMBER = 100_000, 1e40
# A report takes a second for ten arms, and compares each backbone with each other.
MOST_ARMS, MOST_MODELS = 1_000, 32
STRICT = {"strict": True, "allow_inf_nan": False}  # `__pydantic_config__` of dataclasses that are read


@dataclass(frozen=True)
class Check:
    """In an annotation: a function that returns the value, or raises a ValueError."""

    function: Callable[[Any], Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        # pydantic is imported where it is used: it takes two tenths of a second, which --help does not need.
        from pydantic_core.core_schema import no_info_after_validator_function

        return no_info_after_validator_function(self.function, handler(source))


@dataclass(frozen=True)
class As:
    """In an annotation: the type by which the value is validated."""

    kind: Any

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return handler.generate_schema(self.kind)


def fields(required: bool = False, extra: str = "ignore", /, **types: Any) -> As:
    """A JSON object with these fields; all others are ignored, or allowed."""
    kind = TypedDict("fields", types, total=required)  # type: ignore[misc]
    setattr(kind, "__pydantic_config__", {"extra": extra})  # noqa: B010
    return As(kind)


def _lines(text: str) -> str:
    return "\n".join(map(printable, text.splitlines()))


def _place(text: str) -> str:
    if text != "random" and not Path(text).is_absolute():
        raise ValueError("it is neither 'random' nor an absolute path")
    return printable(text)


def _id(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", text):
        raise ValueError("use letters, digits and . _ -")
    return text


def _metric(value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (number and -MOST_NUMBER <= value <= MOST_NUMBER):
        raise ValueError(f"{value!r:.40} is not a number in range")
    return value


def _scalar(value: Any) -> Any:
    return printable(value) if isinstance(value, str) else value if isinstance(value, bool) else _metric(value)


def _history(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for number, row in enumerate(rows, start=1):
        epoch, best = row.get("epoch"), row.get("best_epoch")
        if not (type(epoch) is type(best) is int and epoch == number and 1 <= best <= number):
            raise ValueError(f"entry {number} has epoch {epoch} and best_epoch {best}")
    return rows


def _full(status: str) -> str:
    if status not in [each for each in Status if each.is_full]:
        raise ValueError(f"{status!r:.40} is not the status of a complete trial")
    return status


def _checkpoint(state: dict[str, Any]) -> dict[str, Any]:
    if not all(type(state["config"].get(name)) is int for name in ("micro_batch", "accumulation")):
        raise ValueError("config has no micro_batch or accumulation")
    if not state["history"] or state["history"][-1]["best_epoch"] != state["best"]["epoch"]:
        raise ValueError("history and best do not match")
    if any(row.get(name) is None for row in state["history"] for name in ("val_acc", "val_macro_f1")):
        raise ValueError("history has no val_acc or val_macro_f1")
    return state


def _plan(plan: dict[str, Any]) -> dict[str, Any]:
    if not len(set(plan["trial_ids"])) == len(plan["trial_ids"]) == len(plan["trials"]):
        raise ValueError("trials and trial_ids do not match")
    arms = set(map(arm_of, plan["trials"]))
    if len(arms) > MOST_ARMS or len({arm.model for arm in arms}) > MOST_MODELS:
        raise ValueError(f"its trials have more than {MOST_ARMS} arms, or more than {MOST_MODELS} backbones")
    return plan


def _setting(name: str, hint: Any) -> Any:
    """The type of a field of TrainConfig; which values it may have depends on the program's version."""
    types = {int: Epochs if name == "epochs" else Annotated[int, Ge(0), Le(2**64)], float: Number, str: Text}
    return typing.Union[*(types.get(each, each) for each in typing.get_args(hint) or (hint,))]


Text = Annotated[str, Check(printable)]
Lines = Annotated[str, Check(_lines)]
Place = Annotated[str, Check(_place)]  # of weights: an absolute path, so that nothing is downloaded, or 'random'
Id = Annotated[str, Check(_id)]  # usable as the name of a file or directory
Time = Annotated[str, Check(lambda text: datetime.fromisoformat(text) and printable(text))]  # ISO 8601
Count = Annotated[int, Ge(0), Le(10**15)]
Epochs = Annotated[int, Ge(0), Le(MOST_EPOCHS)]
Number = Annotated[float, Ge(-MOST_NUMBER), Le(MOST_NUMBER)]
Seconds = Annotated[float, Ge(0), Le(1e15)]
Scalar = Annotated[Any, Check(_scalar)]
# Metrics of the epochs 1, 2, ...; those that are not finite are None.
_ROW = Annotated[dict[Text, Annotated[Any, Check(_metric)]], Len(0, 1000)]
History = Annotated[list[_ROW], Len(0, MOST_EPOCHS), Check(_history)]

# Numbers of parameters, and layers with adapters, of a trial.
PARAMETERS = fields(total=Count, trainable=Count, adapter=Count, trainable_percent=Number)
LORA = fields(matches=dict[Text, Count], **dict.fromkeys(("modules", "trained_in_full", "scaled_inputs"), list[Text]))
# Pretrained weights: 'random' or a path, SHA-256 of the base model's tensors and of the file, input features.
_WEIGHTS = dict.fromkeys(("origin", "sha256", "format", "licence", "pretraining", "objective"), Text | None)
_FRONTEND = {"frontend": dict[Text, Scalar] | None, "frontend_mismatch": list[Text] | None}
WEIGHTS = fields(source=Text, fingerprint=Text, published=bool | None, **_WEIGHTS, **_FRONTEND)
_TEXTS = dict.fromkeys(("git_commit", "python", "host", "platform"), Text)
PROVENANCE = fields(git_dirty=bool, versions=dict[Text, Text | None], device=Text | None, **_TEXTS)
# A data set: the numbers of clips and players by split.
_DATA = {"clips": dict[Text, Count], "players": dict[Text, Count], "synthetic": bool, "players_known": bool | None}
DATA = fields(root=Text, fingerprint=Text, notes=list[Text], **_DATA)

VERSION = fields(schema=Any)  # of a file, whatever else it contains
# A checkpoint: its manifest.json, in that of earlier versions the identity of the only file; and its state.json.
_IDENTITY = {"bytes": Count, "sha256": Text}
MANIFEST = fields(files=dict[Text, Annotated[Any, fields(True, **_IDENTITY)]], **_IDENTITY)
_GROUP = fields(
    True,
    params=Annotated[list[Count], Len(0, 100_000)],
    betas=tuple[Number, Number],
    **dict.fromkeys(("lr", "eps", "weight_decay"), Number),
)
_CHECKPOINT = fields(
    True,
    config=dict[Text, Scalar],
    base=Text,
    end=Annotated[Text, Check(_full)] | None,
    history=History,
    best=Annotated[Any, fields(True, epoch=Epochs, score=Number)],
    param_groups=Annotated[list[Annotated[Any, _GROUP]], Len(0, 10)],
    steps=dict[Count, Annotated[float, Ge(0), Le(2**24)]],  # exact in float32
)
CHECKPOINT = Annotated[Any, _CHECKPOINT, Check(_checkpoint)]
HEARTBEAT = fields(True, epoch=Count, share=Number, seconds=Seconds)

_HINTS = typing.get_type_hints(TrainConfig)
_CONFIG = fields(**{each.name: _setting(each.name, _HINTS[each.name]) for each in dataclasses.fields(TrainConfig)})
# What the report shows of a request; `Request.from_json` validates all of it.
_REQUEST = fields(False, "allow", device=Text, hold_out=Text, test_also=Text, settings=dict[Text, Scalar])
_ORIGIN = fields(run=Text, trial_id=Text, val_macro_f1=Number | None, val_acc=Number | None, epochs=Count)
_PLAN = fields(
    schema=int,
    created=Required[Time],
    config=Required[Id],
    request=Required[Annotated[Any, _REQUEST]],
    trials=Required[Annotated[list[Annotated[Any, _CONFIG]], Len(1, MOST_TRIALS)]],
    trial_ids=Required[list[Id]],
    planned=Annotated[int, Ge(1), Le(MOST_TRIALS)],  # number of trials, if a searcher proposes them during the run
    search=dict[Text, Any],  # read by `sousaphone.search.design.Search.from_json`
    at_once=Annotated[int, Ge(1), Le(MOST_TRIALS)],
    limits=Annotated[Any, fields(trial=Seconds | None, stall=Seconds | None)],
    notes=list[Text],
    searched=list[Text],  # the settings that the sweep varies
    data=Annotated[Any, DATA],
    provenance=Annotated[Any, PROVENANCE],
    promoted_from=Annotated[Any, _ORIGIN] | None,
    weights=dict[Text, Text],
    baselines=bool,
    extensions=list[Annotated[Any, fields(created=Text, command=Text, added=list[Id])]],
    resources=dict[Text, Scalar],
    **dict.fromkeys(("name", "command", "tuning", "tracker", "config_file"), Text),
)
PLAN = Annotated[Any, _PLAN, Check(_plan)]  # run.json


def read(path: Path, kind: Any, version: int | None = None) -> Any:
    """Read a JSON file as this type, of this version of its schema if given; raise a one-line ValueError if it does not
    match, or an OSError."""
    if version is not None and (found := read(path, VERSION).get("schema")) != version:
        raise ValueError(f"{path} is damaged (its schema is {found!r:.40}, not {version})")
    return parse(read_small(path), kind, str(path))


def parse(content: bytes | str, kind: Any, name: str) -> Any:
    """Read JSON text as this type; raise a ValueError that names the field if it does not match."""
    return _validated(lambda: _adapter(kind).validate_json(content, strict=True), name)


def check(value: Any, kind: Any, name: str) -> Any:
    """Validate Python objects as this type; raise a ValueError that names the field if they do not match."""
    return _validated(lambda: _adapter(kind).validate_python(value, strict=True), name)


def _validated(validate: Callable[[], Any], name: str) -> Any:
    from pydantic import ValidationError

    try:
        return validate()
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = repr(".".join(map(str, first["loc"])))[1:-1]  # its keys may be any text
        message = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{name} is damaged ({f'{place[:200]}: ' if place else ''}{message})") from None


@functools.cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(Annotated[Any, kind] if isinstance(kind, As) else kind)
