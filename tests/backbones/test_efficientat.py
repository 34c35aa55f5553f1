"""EfficientAT: official files of any width load, and the outputs equal the official ones."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sousaphone import lora
from sousaphone.backbones.efficientat import Channels, EfficientAtBackbone, MobileNet, OfficialName, read_name
from sousaphone.backbones.frontend_spec import FrontendOverrides
from sousaphone.backbones.registry import REGISTRY
from sousaphone.config import TrainConfig
from sousaphone.errors import UserError
from sousaphone.model import build_model, load_backbone

# Mean over positions of the official `features` on `mel` for the states of `official_state`, by width in hundredths.
# The code that computed them reproduces the authors' outputs for their mn04 to 1e-7.
REFERENCE = np.load(Path(__file__).parents[1] / "reference" / "efficientat.npz")
WIDTHS = {"mn01": 0.1, "mn04": 0.4, "mn10": 1.0, "mn035": 0.35}


def official_state(width: float) -> dict[str, Tensor]:
    """A state dict in the official format and order, with values from a formula."""
    net = MobileNet(Channels.of_width(width))
    shapes = {official: net.state_dict()[key].shape for key, official in net.official_keys().items()}
    state = {}
    for place, key in enumerate(sorted(shapes, key=official_order)):
        shape = shapes[key]
        index = np.arange(math.prod(shape))
        wave = np.sin(0.37 * index * (1 + index % 7) + place)
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(1)
            continue
        if len(shape) > 1:
            wave = wave * (3 / math.prod(shape[1:])) ** 0.5
        elif key.endswith(("running_var", "1.weight")):
            wave = 1 + 0.4 * wave
        else:
            wave = 0.3 * wave
        state[key] = torch.from_numpy(wave.astype(np.float32)).reshape(shape)
    return state


def official_order(key: str) -> tuple[Any, ...]:
    last = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    *path, name = key.split(".")
    return ([(0, int(part)) if part.isdigit() else (1, part) for part in path], last.index(name))


@pytest.fixture
def mn01(tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    path = tmp_path / "mn01.pt"
    state = official_state(0.1)
    torch.save(state, path)
    return path, state


@pytest.mark.parametrize("name", WIDTHS)
def test_files_of_every_width_give_official_tokens(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.pt"
    head = {"classifier.2.weight": torch.zeros(4, 4), "classifier.5.bias": torch.zeros(527)}
    torch.save({**official_state(WIDTHS[name]), **head}, path)
    backbone = load_backbone("efficientat", weights=str(path))
    with torch.no_grad():
        tokens = backbone.encode(torch.from_numpy(REFERENCE["mel"]))
    official = torch.from_numpy(REFERENCE[name])
    assert backbone.width == official.shape[1]
    assert float((tokens.mean(1) - official).norm() / official.norm()) <= 1e-5
    assert torch.allclose(backbone.pool(tokens), tokens.mean(1), rtol=1e-4, atol=1e-4)


def test_untrained_attention_pooling_is_the_mean() -> None:
    backbone = load_backbone("efficientat", "nano")
    assert isinstance(backbone, EfficientAtBackbone)
    tokens = torch.randn(2, 12, backbone.width, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(backbone.pool(tokens), tokens.mean(1), atol=1e-6)
    nn.init.ones_(backbone.attention_pool.get_parameter("2.weight"))
    assert not torch.allclose(backbone.pool(tokens), tokens.mean(1), atol=1e-2)


def test_nano_state_round_trips_through_the_official_format(tmp_path: Path) -> None:
    backbone = load_backbone("efficientat", "nano")
    assert isinstance(backbone, EfficientAtBackbone)
    own = backbone.net.state_dict()
    torch.save({official: own[key] for key, official in backbone.net.official_keys().items()}, tmp_path / "nano.pt")
    loaded = load_backbone("efficientat", weights=str(tmp_path / "nano.pt"))
    assert isinstance(loaded, EfficientAtBackbone)
    assert all(torch.equal(value, own[key]) for key, value in loaded.net.state_dict().items())


def test_nano_and_base_have_the_same_module_types() -> None:
    kinds = [{type(module) for module in load_backbone("efficientat", scale).modules()} for scale in ("nano", "base")]
    assert kinds[0] == kinds[1]


def test_random_network_output_depends_on_its_input() -> None:
    backbone = load_backbone("efficientat", "nano")
    generator = torch.Generator().manual_seed(0)
    wave = (torch.rand(4, 32_000, generator=generator) - 0.5) * torch.tensor([[0.01], [0.1], [0.5], [1.0]])
    embedding = backbone(wave)
    assert embedding.std(0).mean() > 0.05


def test_all_linear_covers_every_linear_layer_and_1x1_convolution() -> None:
    model = build_model(TrainConfig(model="efficientat"), 40)
    plain = load_backbone("efficientat", "nano")
    assert isinstance(plain, EfficientAtBackbone)
    expected = [f"backbone.net.{name}" for name, module in plain.net.named_modules() if lora.adaptable(module)]
    assert list(model.targets.modules) == expected
    assert sum(isinstance(module, nn.Linear) for module in plain.net.modules()) == model.targets.matches["se.fc1"] * 2


def test_sweep_targets_are_fresh_layers_and_train_in_full() -> None:
    model = build_model(TrainConfig(model="efficientat", lora_targets="sweep"), 40)
    assert model.targets.trained_in_full == REGISTRY["efficientat"].lora_targets["sweep"]
    assert model.counts().adapter == 0
    prefixes = ("backbone.attention_pool.", "classifier.")
    assert all(name.startswith(prefixes) for name in model.trained_state())
    assert len(model.trained_state()) == 6


@pytest.mark.parametrize("content", [{"model": {"a": torch.zeros(1)}}, [1, 2], {"features.0.0.weight": torch.zeros(1)}])
def test_file_of_another_format_is_refused(content: object, tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    torch.save(content, path)
    with pytest.raises(UserError, match="give an official EfficientAT file") as error:
        load_backbone("efficientat", weights=str(path))
    assert "\n" not in str(error.value)


def test_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a file"):
        load_backbone("efficientat", weights=str(tmp_path))


def test_error_names_missing_unknown_and_misshapen_tensors(mn01: tuple[Path, dict[str, Tensor]]) -> None:
    path, state = mn01
    del state["features.16.1.bias"]
    state["features.99.0.weight"] = torch.zeros(1)
    state["features.4.block.0.0.weight"] = torch.zeros(3, 1, 5, 5)
    torch.save(state, path)
    with pytest.raises(UserError) as error:
        load_backbone("efficientat", weights=str(path))
    for problem in (
        "missing: features.16.1.bias",
        "unknown: features.99.0.weight",
        "of another shape: features.4.block.0.0.weight",
    ):
        assert problem in str(error.value)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mn10_as_mAP_471.pt", OfficialName(1.0)),
        ("mn04_as_mAP_432.pt", OfficialName(0.4)),
        ("mn40_as_no_im_pre_mAP_483(2).pt", OfficialName(4.0)),
        ("mn10_as_hop_5_mAP_475.pt", OfficialName(1.0, hop=160)),
        ("mn10_as_hop_25_mAP_447.pt", OfficialName(1.0, hop=800)),
        ("mn10_as_mels_40_mAP_453.pt", OfficialName(1.0, bins=40)),
        ("mn10_as_fc_s2211_mAP_466.pt", OfficialName(1.0, strides=(2, 2, 1, 1))),
        ("mn10_im.pt", OfficialName(1.0, images=True)),
        ("mn10_im_pytorch.pt", OfficialName(1.0, images=True)),
        ("mine.pt", OfficialName()),
        ("dymn10_as.pt", OfficialName()),
    ],
)
def test_released_file_names_are_parsed(name: str, expected: OfficialName) -> None:
    assert read_name(name) == expected


def test_hop_out_of_range_in_a_file_name_is_refused() -> None:
    with pytest.raises(UserError, match=r"hop 160 .* 1 to 100 ms.* rename") as caught:
        read_name("mn04_as_hop_160_mAP_432.pt")
    assert "--set" not in str(caught.value)  # which does not replace the hop of the training


def test_file_name_sets_hop_bands_and_strides_unless_overridden(
    mn01: tuple[Path, dict[str, Tensor]], tmp_path: Path
) -> None:
    def loaded(name: str, hop: int | None = None) -> EfficientAtBackbone:
        path = mn01[0].rename(tmp_path / name) if not (tmp_path / name).exists() else tmp_path / name
        backbone = load_backbone("efficientat", weights=str(path), overrides=FrontendOverrides(efficientat_hop=hop))
        path.rename(mn01[0])
        assert isinstance(backbone, EfficientAtBackbone)
        return backbone

    assert loaded("mine.pt").frontend.contract == REGISTRY["efficientat"].frontend
    slow = loaded("mn01_as_hop_15_mAP_200.pt")
    assert (slow.frontend.contract.hop, slow.mismatches) == (480, ())
    stated = loaded("mn01_as_hop_15_mAP_200.pt", 160)
    assert (stated.frontend.contract.hop, stated.mismatches) == (160, ("hop 480 for 160",))
    assert loaded("mine.pt", 320).mismatches == ()
    few = loaded("mn01_as_mels_40_mAP_200.pt")
    wave = torch.zeros(1, 32_000)
    assert few.frontend(wave).shape == (1, 40, 100)
    plain, fine = loaded("mine.pt"), loaded("mn01_as_fc_s2211_mAP_200.pt")
    assert plain.net(torch.zeros(1, 1, 128, 100)).shape[2:] == (4, 4)
    assert fine.net(torch.zeros(1, 1, 128, 100)).shape[2:] == (16, 13)


def test_file_that_contradicts_its_name_is_refused(mn01: tuple[Path, dict[str, Tensor]]) -> None:
    path = mn01[0].rename(mn01[0].with_name("mn10_as_mAP_400.pt"))
    with pytest.raises(UserError, match="another width than mn10"):
        load_backbone("efficientat", weights=str(path))
    path = path.rename(path.with_name("mn01_im.pt"))
    with pytest.raises(UserError, match="trained on images"):
        load_backbone("efficientat", weights=str(path))


def test_hop_override_applies_at_nano_scale() -> None:
    assert load_backbone("efficientat", "nano").frontend.contract.hop == 160
    model = build_model(TrainConfig(model="efficientat", efficientat_hop=400), 40)
    assert model.backbone.frontend.contract.hop == 400
