"""The model card of an exported model, in the form of the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sousaphone.backbones.registry import REGISTRY
from sousaphone.deploy.calibration import DEFAULT_ERROR
from sousaphone.deploy.model_folder import ADAPTER, ModelConfig
from sousaphone.deploy.onnx_session import GRAPHS
from sousaphone.runs.deployment import COLUMNS, DeployCard, explanation, row
from sousaphone.text import first_few


@dataclass(frozen=True)
class Statement:
    """The statements of the run's report: its banner (a run with one has no verdict), its verdict, its baseline."""

    banner: str | None
    headline: str
    details: Sequence[str] = ()
    baseline: tuple[str, float] | None = None  # title and test accuracy (centre window) of the best one


def model_card(
    config: ModelConfig,
    results: Mapping[str, Any],
    statement: Statement,
    name: str,
    deployment: DeployCard | None = None,
) -> str:
    """Return the card in Markdown, with its YAML header."""
    body = _body(config, results, statement, name, deployment)
    return f"---\n{_header(config, results, name)}\n---\n\n" + "\n".join(body) + "\n"


def _header(config: ModelConfig, results: Mapping[str, Any], name: str) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    base = config.base_weights
    spec = REGISTRY[config.trial().model]
    tested = results.get("test_averaged") or results.get("test_centre_window") or {}
    data: Any = {"dataset_type": "drum-rudiments", "dataset_name": "test clips of the run", "dataset_split": "test"}
    measured = [
        EvalResult("audio-classification", metric_type=metric, metric_value=round(tested[field], 4), **data)
        for metric, field in (("accuracy", "accuracy"), ("f1", "macro_f1"))
        if field in tested
    ]
    return ModelCardData(
        # Hub identifiers of licences are in lower case.
        license=str(config.licences.get("model") or base.get("licence") or "unknown").lower(),
        library_name="peft" if config.kind == "adapter" else "sousaphone",
        pipeline_tag="audio-classification",
        base_model=spec.weights.hub if base.get("published") and spec.weights else None,
        tags=["audio", "drums", "rudiments", "sousaphone", spec.name],
        metrics=["accuracy", "f1"],
        model_name=name.rpartition("/")[2] if measured else None,
        eval_results=measured or None,
    ).to_yaml()


def _body(
    config: ModelConfig, results: Mapping[str, Any], statement: Statement, name: str, deployment: DeployCard | None
) -> Iterator[str]:
    trial, base, spec = config.trial(), config.base_weights, REGISTRY[config.trial().model]
    yield f"# {name.rpartition('/')[2]}\n"
    if statement.banner:
        yield f"> **{statement.banner}**\n"
    centre = results.get("test_centre_window")
    if statement.baseline and centre and centre["accuracy"] < statement.baseline[1]:
        title, accuracy = statement.baseline
        yield (
            f"> **Below the baseline {title} (accuracy {accuracy:.1%} on the test clips; this model, by the centre "
            f"window: {centre['accuracy']:.1%}).**\n"
        )
    members = f", an ensemble of {len(config.members)} trainings" if config.members else ""
    yield (
        f"{spec.title} ({trial.scale}), fine-tuned ({trial.strategy}) to classify recordings of the "
        f"{len(config.classes)} snare-drum rudiments{members}. Exported by SOUSAphone from trial "
        f"{config.trained.get('trial')} of run {config.trained.get('run')}.\n"
    )
    yield "## Use\n"
    yield f"```bash\nsousaphone predict {name} RECORDING.wav\n```\n"
    yield f'```python\nimport sousaphone\n\nmodel = sousaphone.load("{name}")\nprobabilities = model(wave, rate)\n```\n'
    if config.kind == "adapter":
        yield f'`{ADAPTER}` opens with PEFT, too, over `sousaphone.base_model("{name}")`.\n'
    if deployment and {"onnx", "int8"} & {cost.runtime for cost in deployment.costs}:
        of_members = " of each member" if config.members else ""
        yield (
            f"`{GRAPHS['onnx']}`{of_members} computes `probabilities` and `logits` [batch, classes] from `wave` "
            "[batch, samples] with ONNX Runtime alone; its metadata contain the classes and the sample rate.\n"
        )
    yield (
        f"Input: mono at {config.sample_rate:,} Hz (others are converted), in windows of {config.clip_seconds:g} s. "
        f"Output: probabilities of {len(config.classes)} classes; a recording of anything else gets one of them, too.\n"
    )
    yield "## Results\n"
    if not statement.banner:
        yield "\n".join([statement.headline, *(f"- {detail}" for detail in statement.details)]) + "\n"
    ways = {"mean over windows": results.get("test_averaged"), "centre window": results.get("test_centre_window")}
    rows = [(way, scores) for way, scores in ways.items() if scores is not None]
    if rows:
        yield "| test clips | accuracy | mean over players | 95 % interval | macro F1 | ECE | clips, players |"
        yield "|---|---|---|---|---|---|---|"
        for way, scores in rows:
            interval = scores["player_accuracy_interval"]
            between = " to ".join(f"{end:.1%}" for end in interval) if interval else "–"
            yield (
                f"| {way} | {scores['accuracy']:.1%} | {scores['player_accuracy']:.1%} | {between} | "
                f"{scores['macro_f1']:.3f} | {scores['ece']:.1%} | {scores['clips']}, {scores['players']} |"
            )
        yield (
            "\nThe interval is the wider of that over players and that over clips. ECE: expected calibration error, "
            "the mean distance between confidence and accuracy.\n"
        )
    yield from _confidence(config)
    if deployment:
        yield from _deployment(deployment)
    yield "## Data\n"
    clips = results["trials"][0]["data"].get("clips") or {}
    synthetic = config.trained.get("synthetic_data")
    kind = "the built-in synthetic data set" if synthetic else "a data set of recordings"
    ownership = "" if synthetic else " Its licence is that of its owner and is not known here."
    counts = first_few((f"{count:,} {split}" for split, count in clips.items()), 9)
    yield (
        f"Trained on {kind} (fingerprint {config.trained.get('data_fingerprint')}; clips: {counts}). No known player "
        f"is in two splits.{ownership}\n"
    )
    yield "## Limits\n"
    yield "- The classes are the rudiments alone: there is no class for other playing, other instruments or speech."
    yield "- Rudiments that are rare or missing in the training data are classified unreliably."
    yield (
        "- Confidence was measured on recordings like those of training; with other rooms, drums and microphones it "
        "may be too high."
    )
    if synthetic:
        yield "- The training data are synthetic; accuracy on real recordings is not known."
    yield "\n## Licences\n"
    source = re.sub(r".*[/\\]", "", str(base.get("origin") if base.get("published") else base.get("source")))
    pretraining = base.get("pretraining") or "nothing"
    yield f"- Base weights ({source}): {base.get('licence') or 'not known'}; pretrained on: {pretraining}."
    if licence := config.licences.get("model"):
        yield f"- This model: {licence}."
    yield "- SOUSAphone: MIT. Data: see above."


def _deployment(card: DeployCard) -> Iterator[str]:
    yield "## Speed and size\n"
    yield f"| {' | '.join(COLUMNS)} |"
    yield "|---" * len(COLUMNS) + "|"
    for cost in card.costs:
        yield f"| {' | '.join(row(card, cost))} |"
    yield f"\n{explanation(card)} {card.remarks}".rstrip() + "\n"


def _confidence(config: ModelConfig) -> Iterator[str]:
    chosen = config.calibration.thresholds
    if not chosen:
        yield (
            "No threshold: the run stored no averaged predictions of the validation clips, so no answer is "
            "'undecided'.\n"
        )
        return
    yield "Answers with a confidence below a threshold are 'undecided'. On the validation clips:\n"
    yield "| wrong answers at most | threshold | clips with an answer | wrong answers, measured |"
    yield "|---|---|---|---|"
    for each in chosen:
        mark = " (default)" if each.most_error == DEFAULT_ERROR else ""
        error = "–" if each.error is None else f"{each.error:.1%}"
        yield f"| {each.most_error:.0%}{mark} | {each.confidence:.3f} | {each.coverage:.1%} | {error} |"
    yield ""
