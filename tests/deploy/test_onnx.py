"""ONNX graphs compute what torch computes, and int8 ones nearly so."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from scipy.special import softmax
from transformers import ASTConfig, ASTModel, ClapAudioConfig, ClapAudioModel

from sousaphone import load
from sousaphone.backbones.efficientat_net import Channels, MobileNet
from sousaphone.config import TrainConfig
from sousaphone.deploy.export import export
from sousaphone.deploy.loading import Member
from sousaphone.deploy.model_folder import Calibration
from sousaphone.deploy.onnx_graph import quantize, write_graph
from sousaphone.deploy.onnx_session import LEAST_SECONDS, LOGITS, PROBABILITIES, WAVE
from sousaphone.deploy.trained_trials import best_arm
from sousaphone.errors import UserError
from sousaphone.rudiments import SLUGS
from sousaphone.runs.deployment import Runtime
from sousaphone.runs.directory import RunDirectory
from sousaphone.strategies import STRATEGIES
from tests.backbones.beats_nets import GATED, official, perturbed
from tests.backbones.test_ast import SMALL
from tests.backbones.test_htsat import AUDIO
from tests.deploy.conftest import STATEMENT
from tests.deploy.members import untrained

ROOT = Path(__file__).parents[2]
BACKBONES = ("ast", "htsat", "efficientat", "beats")
TEMPERATURE = 1.7


def member(name: str, scale: str = "nano", weights: str = "random", strategy: str = "lora") -> Member:
    """A model whose trained tensors in pretrained layers are changed, and with them its logits."""
    trial = TrainConfig(model=name, scale=scale, weights=weights, strategy=strategy)
    model = untrained(trial, Calibration(TEMPERATURE, 1.2))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter_name, parameter in model.network.named_parameters():
            if parameter.requires_grad and not parameter_name.startswith(model.network.fresh):
                parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return model


def waves(rate: int, seconds: float) -> np.ndarray:
    """Strokes, noise at full scale, a click, and silence [4, T]."""
    rng, samples = np.random.default_rng(0), np.arange(round(rate * seconds))
    noise = rng.uniform(-1, 1, len(samples))
    strokes = noise * np.exp(-(samples % (rate // 8)) / (0.02 * rate))
    return np.stack([strokes, noise, (samples == 50) * 0.9, 0.0 * noise]).astype(np.float32)


def official_file(name: str, directory: Path) -> Path:
    """A small file in the official format."""
    torch.manual_seed(0)
    if name in ("ast", "htsat"):
        model: Any = ASTModel(ASTConfig(**SMALL)) if name == "ast" else ClapAudioModel(ClapAudioConfig(**AUDIO))
        model.save_pretrained(directory)
        return directory
    if name == "efficientat":
        net = MobileNet(Channels.of_width(0.1))
        content: Any = {key: net.state_dict()[own] for own, key in net.official_keys().items()}
    else:
        content = official(perturbed(**GATED, deep_norm=True))
    torch.save(content, directory / "mn01_as_hop_15.pt")
    return directory / "mn01_as_hop_15.pt"


def check_graph(model: Member, path: Path) -> None:
    write_graph(model, path)
    session = onnxruntime.InferenceSession(path)
    rate, window = model.config.sample_rate, model.config.clip_seconds
    for seconds, clips in ((window, 4), (LEAST_SECONDS, 1), (0.1, 2), (window / 2, 1), (1.234, 3)):
        wave = waves(rate, seconds)[:clips]
        # Shorter clips are padded, as in training and by `sousaphone predict`.
        padded = torch.nn.functional.pad(torch.from_numpy(wave), (0, round(window * rate) - wave.shape[1]))
        with torch.inference_mode():
            expected = model.network(padded, torch.full((clips,), wave.shape[1])).numpy()
        probabilities, logits = session.run([PROBABILITIES, LOGITS], {WAVE: wave})
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)
        np.testing.assert_allclose(probabilities, softmax(expected / TEMPERATURE, -1), rtol=0, atol=1e-5)
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == list(SLUGS)
    assert (int(about["sample_rate"]), float(about["clip_seconds"])) == (rate, model.config.clip_seconds)
    assert float(about["averaged_temperature"]) == 1.2
    assert str(Path.cwd()).encode() not in path.read_bytes()  # no stack traces of the export
    assert sysconfig.get_paths()["purelib"].encode() not in path.read_bytes()


@pytest.mark.parametrize("name", BACKBONES)
def test_graphs_compute_the_logits(name: str, tmp_path: Path) -> None:
    """In one test, because an export takes seconds."""
    check_graph(member(name), tmp_path / "model.onnx")
    check_quantized(tmp_path / "model.onnx", tmp_path / "model.int8.onnx")


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "name"), zip(STRATEGIES, cycle(("beats", "ast")), strict=False))
def test_graph_of_every_strategy_computes_the_logits(strategy: str, name: str, tmp_path: Path) -> None:
    """One backbone for each, because an export takes seconds."""
    check_graph(member(name, strategy=strategy), tmp_path / "model.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_graph_of_an_official_file_computes_the_logits(name: str, tmp_path: Path) -> None:
    check_graph(member(name, "base", str(official_file(name, tmp_path))), tmp_path / "model.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in BACKBONES if name != "ast"])  # whose layers are those of nano
def test_graph_of_the_published_size_computes_the_logits(name: str, tmp_path: Path) -> None:
    check_graph(member(name, "base"), tmp_path / "model.onnx")


def check_quantized(graph: Path, path: Path) -> None:
    """Weights are int8, those of the front end are not, and the logits are similar."""
    quantize(graph, path)
    sessions = [onnxruntime.InferenceSession(each) for each in (graph, path)]
    rate = int(sessions[0].get_modelmeta().custom_metadata_map["sample_rate"])
    wave = waves(rate, 2.0)[:2]
    expected, found = (session.run([LOGITS], {WAVE: wave})[0] for session in sessions)
    spread = np.abs(expected - expected.mean(-1, keepdims=True)).max()
    assert 0 < np.abs(found - expected).max() < 0.2 * spread
    content = onnx.load(path).graph
    tensors = {tensor.name: tensor for tensor in content.initializer}
    size = {name: int(np.prod(tensor.dims)) for name, tensor in tensors.items()}
    floats = {name for name, tensor in tensors.items() if tensor.data_type == onnx.TensorProto.FLOAT}
    front_end = {name for name in tensors if "frontend" in name}
    assert {"bank.matrix", "window"} <= {name.partition("frontend.")[2] for name in front_end & floats}
    assert sum(size[name] > 100_000 for name in front_end & floats) == 2  # the Fourier transform
    places = {"MatMulInteger": 1, "DequantizeLinear": 0}  # of the weights among the inputs
    weights = {node.input[places[node.op_type]] for node in content.node if node.op_type in places}
    assert {tensors[name].data_type for name in weights & tensors.keys()} == {onnx.TensorProto.INT8}
    assert sum(size[name] for name in floats - front_end) < 0.25 * sum(size[name] for name in weights & tensors.keys())


@pytest.fixture(scope="module")
def graphs(run: RunDirectory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The best arm of a run as an ensemble with both graphs. Read-only."""
    folder = tmp_path_factory.mktemp("models") / "graphs"
    export(best_arm(run), folder, STATEMENT, runtimes=("torch", "onnx", "int8"))
    return folder


@pytest.mark.parametrize("seconds", [0.3, 1.3, 2.5, 7.0])
def test_onnx_runtime_gives_the_same_answers(graphs: Path, seconds: float) -> None:
    wave = waves(22_050, seconds)[:2]
    expected = load(graphs, device="cpu")(wave, 22_050)
    np.testing.assert_allclose(load(graphs, runtime="onnx")(wave, 22_050), expected, rtol=0, atol=1e-4)
    int8 = load(graphs, runtime="int8")(wave, 22_050)
    assert 0 < np.abs(int8 - expected).max() < 0.1


def test_graphs_need_no_tensors_and_no_base_weights(graphs: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(graphs, tmp_path / "copy")
    for tensors in copy.rglob("*.safetensors"):
        tensors.unlink()
    wave = waves(16_000, 1.0)[0]
    assert np.array_equal(load(copy, runtime="onnx")(wave, 16_000), load(graphs, runtime="onnx")(wave, 16_000))
    with pytest.raises(UserError, match="missing"):
        load(copy)


def _outside(path: Path) -> None:
    model = onnx.load(path)
    tensor = next(each for each in model.graph.initializer if each.HasField("raw_data") and len(each.raw_data) > 1_000)
    (path.parent.parent.parent / "secret.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../secret.bin")
    path.write_bytes(model.SerializeToString())


def _other_outputs(path: Path) -> None:
    model = onnx.load(path)
    del model.graph.output[1]
    onnx.save(model, path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:1_000]),
        lambda path: path.write_bytes(b"not a graph"),
        lambda path: path.unlink(),
        _outside,
        _other_outputs,
    ],
    ids=["cut", "text", "missing", "outside", "outputs"],
)
def test_damaged_graph_is_refused_in_one_line(graphs: Path, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    copy = shutil.copytree(graphs, tmp_path / "copy")
    damage(copy / "seed-0" / "model.onnx")
    with pytest.raises(UserError) as error:
        load(copy, runtime="onnx")
    assert "\n" not in str(error.value)
    assert "model.onnx" in str(error.value)


@pytest.mark.parametrize(
    "options",
    [{"precision": "bfloat16"}, {"device": "cuda"}, {"weights": "base.pt"}],
    ids=["precision", "device", "weights"],
)
@pytest.mark.parametrize("runtime", ["onnx", "int8"])
def test_graphs_refuse_the_options_of_torch(graphs: Path, runtime: Runtime, options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=rf"{runtime}.*omit.*{next(iter(options))}"):
        load(graphs, runtime=runtime, **options)


@pytest.mark.parametrize("option", [{"runtime": "jax"}, {"precision": "fp16"}, {"device": "gpu"}], ids=str)
def test_unknown_options_are_refused(graphs: Path, option: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(option.values()))):
        load(graphs, **option)


def test_models_without_graphs_are_refused(run: RunDirectory, model: Path) -> None:
    for source in (run.path, model):
        with pytest.raises(UserError, match="--onnx"):
            load(source, runtime="onnx")


def _of_another_model(path: Path) -> None:
    shutil.copy(path.parent.parent / "seed-1" / path.name, path)


def _other_classes(path: Path) -> None:
    for file in path.parent.parent.rglob("config.json"):
        config = json.loads(file.read_text())
        file.write_text(json.dumps({**config, "classes": config["classes"][::-1]}))


@pytest.mark.parametrize("damage", [_of_another_model, _other_classes])
def test_graph_of_another_model_is_refused(graphs: Path, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    copy = shutil.copytree(graphs, tmp_path / "copy")
    damage(copy / "seed-0" / "model.onnx")
    with pytest.raises(UserError, match=r"seed-.*/model\.onnx"):
        load(copy, runtime="onnx")


@pytest.mark.parametrize(
    "change",
    [
        lambda bias: bias[:-1],
        lambda bias: bias[:1],
        lambda bias: np.stack([bias] * 7)[:, None],
    ],
    ids=["classes", "one class", "shape"],
)
def test_graph_with_other_results_is_refused(
    graphs: Path, tmp_path: Path, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    """Not broadcast, and not taken for an answer."""
    copy = shutil.copytree(graphs, tmp_path / "copy")
    model = onnx.load(copy / "seed-0" / "model.onnx")
    logits = change(np.zeros(len(SLUGS), np.float32))
    model.graph.ClearField("node")
    model.graph.ClearField("initializer")
    model.graph.initializer.extend(
        [onnx.numpy_helper.from_array(logits, "bias"), onnx.numpy_helper.from_array(np.array([1]), "axes")]
    )
    model.graph.node.extend(
        [
            onnx.helper.make_node("ReduceMean", [WAVE, "axes"], ["mean"]),
            onnx.helper.make_node("Add", ["mean", "bias"], [LOGITS]),
            onnx.helper.make_node("Identity", [LOGITS], [PROBABILITIES]),
        ]
    )
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    onnx.save(model, copy / "seed-0" / "model.onnx")
    with pytest.raises(UserError, match=r"seed-0/model\.onnx"):
        load(copy, runtime="onnx")(waves(16_000, 1.0), 16_000)


def test_onnx_runtime_sends_no_statistics(graphs: Path, tmp_path: Path) -> None:
    """It would create an identifier of the device and a queue of events in these directories."""
    places = {name: str(tmp_path / name) for name in ("HOME", "XDG_CACHE_HOME", "TMPDIR")}
    for place in places.values():
        Path(place).mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "CI" and not name.startswith("ORT_")}
    script = "import sys, sousaphone, numpy; sousaphone.load(sys.argv[1], runtime='onnx')(numpy.zeros(9), 16000)"
    subprocess.run([sys.executable, "-c", script, str(graphs)], cwd=ROOT, env={**environment, **places}, check=True)
    assert not [path for path in tmp_path.rglob("*") if path.name == ".ses" or "onnxruntime" in path.name]
