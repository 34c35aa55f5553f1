"""From options to a `Job`: start, resume, extend or promote a run.

Nothing is written to disk, except that missing weights are downloaded, also with --plan.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sousaphone.config import RATES, Sweep, TrainConfig, arm_of, check_trials, parse_setting
from sousaphone.errors import UserError, printable
from sousaphone.files import expanded
from sousaphone.hardware import cluster_address
from sousaphone.planning.job import Job
from sousaphone.planning.resolve_options import (
    check_lowest,
    config_name,
    existing_run,
    find_run,
    is_file,
    known_models,
    new_run,
    refuse_changes,
    resolve,
    run_names,
    storage_directory,
    union,
)
from sousaphone.planning.sweep_options import AUGMENT, STALL_TIMEOUT, TRIAL_TIME_LIMIT, Options, Request, flag
from sousaphone.runs import schema
from sousaphone.runs.directory import Limits, RunDirectory
from sousaphone.runs.trial_record import TrialRecord
from sousaphone.search.progress import Progress
from sousaphone.space import searched
from sousaphone.text import parse_duration

MakeSweep = Callable[[str, Request], Sweep]  # of the name of a config, and a request


def make_job(options: Options, make_sweep: MakeSweep, command: str = "") -> Job:
    """Resolve the options; raise a UserError if one is wrong. The run records the `command` that gave them."""
    actions = {"--resume": options.resume, "--extend": options.extend, "--promote": options.promote is not None}
    given = [name for name, value in actions.items() if value]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} exclude each other; give one of them")
    tuned = [flag(name) for name in ("from_", "rates") if getattr(options, name) is not None]
    if len(tuned) > 1:
        raise UserError(f"{' and '.join(tuned)} exclude each other; give one of them")
    if tuned and given:
        raise UserError(f"{tuned[0]} requires a new run; leave it out with {given[0]}")
    if options.retry_failed and not options.resume:
        remedy = "leave --retry-failed out" if given else "add it"
        raise UserError(f"--retry-failed requires --resume; {remedy}")
    check_lowest(options)
    if options.resume or options.extend:
        job = _continue(options, make_sweep)
    elif options.promote is not None:
        job = _promote(options, options.promote, make_sweep)
    else:
        job = _start(options, make_sweep)
    check_trials(job.trials, job.searched)
    if len(set(job.request.seeds)) < len(job.request.seeds):  # finalists of a search are not among the trials yet
        raise UserError(f"--seeds {' '.join(map(str, job.request.seeds))} has a seed twice; give each once")
    places = (job.request.data_dir, job.request.cache_dir, job.request.test_also, *job.request.weights.values())
    for path in (str(job.directory.path), *map(str, places)):
        if printable(path) != path:  # run.json could not name it
            raise UserError(f"the path {printable(path)!r} has a control character or is not UTF-8; rename it")
    longest = max(trial.epochs for trial in job.trials)
    if job.planned > schema.MOST_TRIALS or longest > schema.MOST_EPOCHS:
        raise UserError(f"a sweep has at most {schema.MOST_TRIALS} trials of {schema.MOST_EPOCHS} epochs; give fewer")
    if len({arm_of(dataclasses.asdict(trial)) for trial in job.trials}) + job.arms_left > schema.MOST_ARMS:
        raise UserError(f"a sweep has at most {schema.MOST_ARMS} arms; give fewer points")
    _refuse_without_effect(options, job, tuned)
    saved = (job.plan or {}).get("baselines", True)
    return dataclasses.replace(
        job,
        time_limit=parse_duration("--time-limit", "none" if options.time_limit is None else options.time_limit),
        baselines=saved if options.baselines is None else options.baselines,
        tracker=_tracker(options, job.plan or {}),
        command=command,
    )


def _refuse_without_effect(options: Options, job: Job, tuned: Sequence[str]) -> None:
    """Raise a UserError if a given option is in no trial, or has no effect on those that have its value.

    `tuned` are the given ones of --from and --rates.
    """
    config = f"--config {job.config_file or job.config}"
    trials, proposed = list(job.trials), set(job.searched) if job.sweep.searcher is not None else set()
    if job.sweep.search is not None:  # stand-ins for its finalists, which are planned later
        trials += [dataclasses.replace(trials[0], seed=seed, score_test=True) for seed in job.request.seeds]
    settings = dict(map(parse_setting, options.set or ()))
    for text, name, values in _given(options, job.request, settings):
        if name in proposed or not values - {"auto"}:
            continue
        having = [trial for trial in trials if getattr(trial, name) in values]
        if missing := values - {getattr(trial, name) for trial in having}:
            remedy = "leave it out, or use the request in that file" if job.config_file else "leave it out"
            raise UserError(f"{text} has no effect: no trial of {config} has {name}={min(missing)}; {remedy}")
        lacking = [trial.lacks(name) for trial in having]
        if all(lacking) and not proposed & {"strategy", "augment"}:  # trials to come may not lack it
            raise UserError(f"{text} has no effect without {lacking[0]}; leave it out")
    if options.baselines and not any(trial.score_test for trial in trials):
        raise UserError("--baselines has no effect without trials that score test clips; leave it out")
    if job.config == RATES and (unused := [*tuned, *["--set learning_rate"] * ("learning_rate" in settings)]):
        raise UserError(f"{unused[0]} has no effect with {config}, which searches for learning rates; leave it out")
    used = (
        getattr(trial, name) == value
        for trial in job.trials
        for name, value in job.request.tuned.get(trial.model, {}).items()
        if name not in settings
    )
    if tuned and not any(used):
        raise UserError(f"{tuned[0]} has no effect: no trial of {config} has a setting that it found; leave it out")


def _given(options: Options, request: Request, settings: Mapping[str, Any]) -> Iterator[tuple[str, str, set[Any]]]:
    """Yield the options that are fields of a trial: the words, the field, and the values, if it is given."""
    yield from ((f"--set {key}={value}", key, {value}) for key, value in settings.items())
    yield "--models", "model", set(options.models or ())
    yield "--seeds", "seed", set(options.seeds or ())
    yield f"--augment {options.augment}", "augment", set(AUGMENT.get(str(options.augment), ()))
    for name in ("strategy", "lora_targets", "scale", "epochs", "hold_out", "test_also"):
        if (word := getattr(options, name)) not in (None, "auto"):
            yield f"{flag(name)} {word}", name, {getattr(request, name)}


def _start(options: Options, make_sweep: MakeSweep) -> Job:
    file = _given_file(options)
    config = config_name(options.config or "backbones")
    directory = new_run(options, f"{config}-{options.dataset or 'tiny'}")
    request = resolve(options)
    sweep = make_sweep(file or config, request)
    trials = sweep.trials()
    remarks = []
    if options.epochs is None:
        remarks.append(f"epochs: {request.epochs} (--epochs N for another number)")
    if options.scale in (None, "auto") and request.scale == "nano":
        remarks.append("scale: nano, because the device is the CPU (--scale base for the published sizes)")
    if request.device == "cpu" and any(trial.precision == "bfloat16" for trial in trials):
        remarks.append("precision: bfloat16 (--set precision=float32 for slower and more exact training)")
    if cluster_address() and request.cpus_per_trial is None:
        remarks.append("CPUs per trial: from this machine's cores, not the cluster's (--cpus-per-trial N to change)")
    if request.built_in:
        remarks.append("data: the built-in synthetic set (--data-dir DIR for your own recordings)")
    tuned_by = options.from_ or options.rates
    if tuned_by and (without := [model for model in request.models if model not in request.tuned]):
        option = flag("from_" if options.from_ else "rates")
        remarks.append(f"{option} {tuned_by} has no settings for {', '.join(without)}: these are untuned")
    if sweep.search is not None:
        search, trials = sweep.search.begun(trials)
        sweep = dataclasses.replace(sweep, search=search)
    elif given := [name for name in ("budget", "sampler") if getattr(options, name) is not None]:
        raise UserError(f"{flag(given[0])} requires a search; add --config search, or leave it out")
    return Job(
        directory,
        request,
        config,
        sweep,
        tuple(trials),
        _limits(options, {}),
        config_file=file,
        remarks=tuple(remarks),
    )


def _given_file(options: Options) -> str:
    """Return the absolute path of the sweep's Python file; empty if it is a module of tune_configs."""
    return str(expanded(options.config).absolute()) if options.config and is_file(options.config) else ""


def _own_file(options: Options, run: RunDirectory, plan: Mapping[str, Any]) -> str:
    """Return the Python file of an existing run's sweep; raise a UserError if somebody else may have named it."""
    file = _given_file(options) or str(plan.get("config_file", ""))
    if file and not options.config and not run.is_own:
        raise UserError(
            f"{run.path} is from elsewhere, and resuming it would execute {file}; read that file, then give it: "
            f"--config {file}"
        )
    return file


def _continue(options: Options, make_sweep: MakeSweep) -> Job:
    """Resume or extend a run."""
    directory, remarks = existing_run(options)
    plan = directory.read_foreign_plan()
    saved, trials = _saved(directory, plan)
    config = str(plan["config"])
    refuse_changes(options, saved, config, trials)
    request, file = resolve(options, saved), _own_file(options, directory, plan)
    added: list[TrainConfig] = []
    if options.extend:
        request, added = _extension(options, request, file or config, trials, make_sweep)
    trials = [
        dataclasses.replace(trial, cache_dir=request.cache_dir, weights=request.weights[trial.model])
        for trial in [*trials, *added]
    ]
    sweep, promoted = make_sweep(file or config, request), plan.get("promoted_from") or {}
    job = Job(
        directory,
        request,
        config,
        _one_trial(sweep) if promoted else sweep,
        tuple(trials),
        _limits(options, plan.get("limits", {})),
        config_file=file,
        plan=plan,
        added=tuple(trial.trial_id for trial in added),
        promoted_from=promoted,
        retry_failed=options.retry_failed,
        remarks=tuple(remarks),
    )
    return job if sweep.search is None else job.with_search(Progress.read(directory).search)


def _saved(run: RunDirectory, plan: Mapping[str, Any]) -> tuple[Request, list[TrainConfig]]:
    """Return the request and the trials of a run; raise a UserError if one is damaged."""
    with run.checking():
        request = Request.from_json(plan["request"])
        trials = [TrainConfig(**trial) for trial in plan["trials"]]
        if not plan.get("data", {}).get("fingerprint"):
            raise ValueError("data.fingerprint is missing")
        TrainConfig(dataset=request.dataset, strategy=request.strategy, scale=request.scale, device=request.device)
        if not {*known_models(request.models), *(trial.model for trial in trials)} <= request.weights.keys():
            raise ValueError("request.weights lacks a backbone")
    return request, trials


def _extension(
    options: Options, request: Request, config: str, trials: Sequence[TrainConfig], make_sweep: MakeSweep
) -> tuple[Request, list[TrainConfig]]:
    """Return the request of the extended run, and the trials to add.

    Backbones that the run has keep their settings; new ones get those of the sweep.
    """
    if not (options.models or options.augment or options.seeds):
        raise UserError("--extend needs something to add; give --models, --augment or --seeds, or use --resume")
    models = known_models(options.models) if options.models else request.models
    extension = dataclasses.replace(
        request,
        models=models,
        augment=AUGMENT[options.augment] if options.augment else request.augment,
        seeds=tuple(options.seeds) if options.seeds else request.seeds,
        weights={model: request.weights[model] for model in models},
    )
    known, planned = {trial.model: trial for trial in reversed(trials)}, {trial.trial_id for trial in trials}
    added = []
    sweep = make_sweep(config, extension)
    if sweep.searcher is not None:
        raise UserError("--extend cannot add to a sweep whose trials a searcher proposes; start a new run")
    for point in sweep.trials():
        if point.model in known:
            own = {"augment", "seed", "tag", *searched(sweep.param_space, point.model)}
            point = dataclasses.replace(known[point.model], **{name: getattr(point, name) for name in own})
        if point.trial_id not in planned:
            added.append(point)
    if not added:
        raise UserError(
            "--extend adds nothing: all of these trials are in the run already; give --models, --augment or --seeds "
            "that the run does not have, or use --resume"
        )
    extended = dataclasses.replace(
        request,
        models=union(request.models, models),
        augment=union(request.augment, extension.augment),
        seeds=union(request.seeds, extension.seeds),
    )
    return extended, added


def _promote(options: Options, name: str, make_sweep: MakeSweep) -> Job:
    promoted = [declared.name for declared in dataclasses.fields(Options) if declared.metadata["promoted"]]
    given = [flag(name) for name in promoted if getattr(options, name) is not None]
    if given:
        raise UserError(f"--promote takes {', '.join(given)} from the best trial; leave that out")
    source = find_run(options, name)
    if source is None:
        path, storage = expanded(name).absolute(), storage_directory(options)
        raise UserError(f"--promote {name}: {path} is not a run directory; runs in {storage}: {run_names(storage)}")
    plan = source.read_foreign_plan()
    if plan["config"] == RATES or "search" in plan:
        raise UserError(
            f"--promote {source.path}: it is a search; start a new run with the settings that it found: "
            f"--from {source.path}"
        )
    best, remarks = _best(source, plan)
    config_of = "backbones" if plan.get("config_file") else str(plan["config"])  # the trial's settings are known
    saved, trials = _saved(source, plan)
    config = trials[plan["trial_ids"].index(best.trial_id)]
    request = dataclasses.replace(
        resolve(options, saved),
        models=(config.model,),
        augment=(config.augment,),
        seeds=tuple(options.seeds or (config.seed,)),
        weights={config.model: config.weights},
        dataset=options.dataset or config.dataset,
        epochs=config.epochs if options.epochs is None else options.epochs,
    )
    trials = [
        dataclasses.replace(config, seed=seed, tag="", dataset=request.dataset, epochs=request.epochs)
        for seed in request.seeds
    ]
    return Job(
        new_run(options, f"{source.path.name}-promoted"),
        request,
        config_of,
        _one_trial(make_sweep(config_of, request)),
        tuple(trials),
        _limits(options, {}),
        promoted_from={
            "run": str(source.path),
            "trial_id": best.trial_id,
            "val_macro_f1": best.best["val_macro_f1"],
            "val_acc": best.best["val_acc"],
            "epochs": len(best.history),
        },
        remarks=tuple(remarks),
    )


def _one_trial(sweep: Sweep) -> Sweep:
    """Return a sweep for the seeds of one configuration."""
    return dataclasses.replace(sweep, searcher=None, scheduler=None)


def _best(source: RunDirectory, plan: Mapping[str, Any]) -> tuple[TrialRecord, list[str]]:
    """Return the best finished trial by val_macro_f1, and lines with the scores of all finished trials."""
    records = [record for trial_id in plan["trial_ids"] if (record := source.record(trial_id)) and record.history]
    scores = ("val_macro_f1", "val_acc")
    finished = [r for r in records if r.status.is_full and None not in (r.best.get(name) for name in scores)]
    if not finished:
        raise UserError(
            f"--promote {source.path}: none of its {len(plan['trial_ids'])} trials has finished; "
            f"to resume: {source.resume_command}"
        )
    finished.sort(key=lambda record: record.best["val_macro_f1"], reverse=True)
    lines = [f"promotes {finished[0].trial_id} of {source.path}, the best of {len(finished)} finished by val_macro_f1:"]
    lines += [
        f"  {record.trial_id:<28} val_macro_f1 {record.best['val_macro_f1']:.3f}  val_acc {record.best['val_acc']:.3f}"
        for record in finished
    ]
    if partial := len(records) - len(finished):
        lines.append(f"  not considered: {partial} with partial results")
    return finished[0], lines


def _tracker(options: Options, plan: Mapping[str, Any]) -> str:
    """Return the given tracker, else that of the run; raise a UserError if its package is not installed."""
    tracker = str(options.tracker or plan.get("tracker", "none"))
    if tracker == "wandb" and importlib.util.find_spec("wandb") is None:
        raise UserError(
            "--tracker wandb needs the package wandb, which is not installed: pip install 'wandb>=0.31', "
            "or give --tracker none"
        )
    return tracker


def _limits(options: Options, saved: Mapping[str, float | None]) -> Limits:
    """Return the given limits of the trials, else those of the run, else the defaults."""

    def limit(name: str, option: str, default: str) -> float | None:
        given = getattr(options, option)
        if given is None and name in saved:
            return saved[name]
        return parse_duration(flag(option), default if given is None else given)

    return Limits(
        trial_seconds=limit("trial", "trial_time_limit", TRIAL_TIME_LIMIT),
        stall_seconds=limit("stall", "stall_timeout", STALL_TIMEOUT),
    )
