"""Publishing on a local server that imitates the hub: what is uploaded, refused, resumed and read again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import yaml

from sousaphone import load
from sousaphone.cli.command import EXIT_FAILED, EXIT_INPUT, EXIT_OK
from sousaphone.cli.publish import main
from sousaphone.deploy import model_folder
from sousaphone.deploy import publish as publishing
from sousaphone.deploy.export import export
from sousaphone.deploy.model_card import model_card
from sousaphone.deploy.model_folder import ModelConfig
from sousaphone.deploy.trained_trials import best_arm
from sousaphone.runs.deployment import DeployCard, Latency, RuntimeCost
from sousaphone.runs.directory import RunDirectory
from tests.deploy.conftest import STATEMENT
from tests.deploy.hub_server import OWNER, READER, TOKEN, Hub

ROOT = Path(__file__).parents[2]
NAME = f"{OWNER}/drums"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub to whose account this process is logged in."""
    server = Hub()
    with server.served():
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub_cache"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


@pytest.fixture
def folder(model: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    return copy


Publish = Callable[..., tuple[int, str, str]]


@pytest.fixture
def publish(capsys: pytest.CaptureFixture[str]) -> Publish:
    """`publish(folder, *options, to=NAME)`: exit code, stdout, stderr."""

    def run(folder: Path, *options: str, to: str = NAME) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = main([str(folder), "--to", to, *options])
        except SystemExit as error:  # of the parser
            code = int(error.code or 0)
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's library waits for seconds before it tries again."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def hash_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def change(folder: Path, **base_weights: object) -> None:
    """Change the record of the base weights."""
    path = folder / model_folder.CONFIG
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "base_weights": {**content["base_weights"], **base_weights}}))


def header(card: bytes) -> dict[str, object]:
    return yaml.safe_load(card.decode().split("---")[1])


def test_silent_hub_is_one_line(hub: Hub, folder: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "_SILENCE_SECONDS", 0.2)
    monkeypatch.setattr(huggingface_hub.get_session(), "timeout", None)  # restores it afterwards
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the system accepts the connection
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        code, _, err = publish(folder)
    assert code == EXIT_FAILED
    assert len(err.splitlines()) == 1
    assert "timed out" in err


@pytest.mark.parametrize("form", ["model", "merged"])
def test_published_model_gives_the_same_probabilities(
    form: str, request: pytest.FixtureRequest, hub: Hub, publish: Publish
) -> None:
    folder = request.getfixturevalue(form)
    code, out, err = publish(folder)
    assert code == EXIT_OK, err
    assert f"{hub.url}/{NAME}" in out.splitlines()[-1]
    wave = np.random.default_rng(0).standard_normal(20_000) / 5
    assert np.array_equal(load(NAME)(wave, 16_000), load(folder)(wave, 16_000))


def test_published_ensemble_gives_the_same_probabilities(
    run: RunDirectory, tmp_path: Path, hub: Hub, publish: Publish
) -> None:
    export(best_arm(run), tmp_path / "both", STATEMENT)
    assert publish(tmp_path / "both")[0] == EXIT_OK
    assert np.array_equal(load(NAME)(np.ones(16_000) / 2, 16_000), load(tmp_path / "both")(np.ones(16_000) / 2, 16_000))


def test_dry_run_writes_the_uploaded_files(folder: Path, tmp_path: Path, hub: Hub, publish: Publish) -> None:
    (folder / "diary.txt").write_text("private")
    code, out, _ = publish(folder, "--space", "--dry-run", str(tmp_path / "dry"))
    assert code == EXIT_OK
    assert not hub.requests
    assert publish(folder, "--space")[0] == EXIT_OK
    for kind in ("model", "space"):
        root = tmp_path / "dry" / kind
        written = {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}
        uploaded = hub.repositories[f"{kind}s/{NAME}"]
        assert written == {name: content for name, content in uploaded.items() if name != ".gitattributes"}
        assert not any("diary" in name for name in uploaded)
    for name in model_folder.CONFIG, model_folder.ADAPTER, model_folder.CARD, "app.py", "requirements.txt":
        assert name in out


def test_dry_run_needs_no_token_and_writes_nothing_without_a_directory(
    folder: Path, tmp_path: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    before = sorted(tmp_path.rglob("*"))
    assert publish(folder, "--dry-run")[0] == EXIT_OK
    assert sorted(tmp_path.rglob("*")) == before
    code, _, err = publish(folder)
    assert (code, "HF_TOKEN" in err) == (EXIT_INPUT, True)


def test_dry_run_keeps_existing_files(folder: Path, tmp_path: Path, publish: Publish) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "diary.txt").write_text("kept")
    code, _, err = publish(folder, "--dry-run", str(tmp_path / "full"))
    assert (code, "--dry-run" in err) == (EXIT_INPUT, True)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["diary.txt"]


def test_repositories_are_private_by_default(folder: Path, hub: Hub, publish: Publish) -> None:
    assert publish(folder, "--space")[0] == EXIT_OK
    assert hub.private == {f"models/{NAME}", f"spaces/{NAME}"}
    assert publish(folder, "--public", to=f"{OWNER}/open")[0] == EXIT_OK
    assert hub.private == {f"models/{NAME}", f"spaces/{NAME}"}


def test_existing_public_repository_needs_the_option(folder: Path, hub: Hub, publish: Publish) -> None:
    hub.create("models", NAME, private=False)
    code, _, err = publish(folder)
    assert (code, "--public" in err) == (EXIT_INPUT, True)
    assert hub.commits == 0
    assert publish(folder, "--public")[0] == EXIT_OK


def test_existing_private_repository_is_not_made_public(folder: Path, hub: Hub, publish: Publish) -> None:
    hub.create("models", NAME, private=True)
    code, _, err = publish(folder, "--public")
    assert (code, "leave --public out" in err) == (EXIT_INPUT, True)
    assert (hub.commits, hub.private) == (0, {f"models/{NAME}"})


@pytest.mark.parametrize("public", [False, True])
def test_second_publication_uploads_nothing(public: bool, folder: Path, hub: Hub, publish: Publish) -> None:
    options = ["--public"] if public else []
    assert publish(folder, *options)[0] == EXIT_OK
    hub.requests.clear()
    assert publish(folder, *options)[0] == EXIT_OK
    assert hub.commits == 1
    assert not any(request.startswith("PUT") for request in hub.requests)


def test_short_interruption_is_bridged(merged: Path, hub: Hub, publish: Publish, no_wait: None) -> None:
    hub.cuts = 1
    assert publish(merged)[0] == EXIT_OK
    assert hub.repositories[f"models/{NAME}"][model_folder.MERGED] == (merged / model_folder.MERGED).read_bytes()


def test_upload_that_was_cut_off_is_resumed(
    run: RunDirectory, tmp_path: Path, hub: Hub, publish: Publish, no_wait: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(best_arm(run), tmp_path / "both", STATEMENT)
    first, second = (tmp_path / "both" / name / model_folder.ADAPTER for name in ("seed-0", "seed-1"))
    # The first file arrives, the other one does not, however often it is sent.
    hub.lost = {hash_of(second)}
    code, _, err = publish(tmp_path / "both")
    assert code == EXIT_FAILED
    assert NAME in err.splitlines()[-1]
    assert "Traceback" not in err
    assert list(hub.large) == [hash_of(first)]
    assert hub.commits == 0
    assert list(hub.repositories[f"models/{NAME}"]) == [".gitattributes"]  # never half of a model
    hub.lost.clear()
    hub.requests.clear()
    assert publish(tmp_path / "both")[0] == EXIT_OK
    assert [each for each in hub.requests if each.startswith("PUT")] == [f"PUT /upload/{hash_of(second)}"]
    assert hub.commits == 1
    assert load(NAME).classes


def test_files_of_an_earlier_model_are_removed(model: Path, merged: Path, hub: Hub, publish: Publish) -> None:
    assert publish(model)[0] == EXIT_OK
    own = {"picture.png", "docs/README.md", "onnx/model.onnx", "seed-1/picture.png"}
    hub.repositories[f"models/{NAME}"] |= dict.fromkeys([*own, "seed-1/config.json"], b"")
    hub.add_repository(NAME, hub.repositories[f"models/{NAME}"], private=True)
    assert publish(merged)[0] == EXIT_OK
    files = {model_folder.CARD, model_folder.CONFIG, model_folder.RESULTS, model_folder.MERGED}
    assert hub.repositories[f"models/{NAME}"].keys() == files | own | {".gitattributes"}
    assert hub.commits == 2


@pytest.mark.parametrize(
    ("token", "name", "named"),
    [
        ("hf_wrongOne", NAME, "hf auth login"),
        (READER, NAME, "may not write"),
        (TOKEN, "somebody/drums", "OWNER"),
        (TOKEN, "somebody/theirs", "OWNER"),  # exists
        (TOKEN, "drums", "OWNER/NAME"),
        (TOKEN, "me/my drums", "OWNER/NAME"),
        (TOKEN, "a/b/c", "OWNER/NAME"),
    ],
)
def test_refusals_are_one_line_without_the_token(
    token: str, name: str, named: str, folder: Path, hub: Hub, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.create("models", "somebody/theirs", private=False)
    monkeypatch.setenv("HF_TOKEN", token)
    code, out, err = publish(folder, "--public", to=name)
    assert code == EXIT_INPUT
    assert err.count("\n") == 1
    assert named in err
    assert token not in out + err
    assert hub.commits == 0


def test_space_that_needs_a_subscription_is_refused(folder: Path, hub: Hub, publish: Publish) -> None:
    hub.refuse = 402
    code, _, err = publish(folder, "--space")
    assert (code, "--space" in err, err.count("\n")) == (EXIT_INPUT, True, 1)
    assert hub.commits == 0


def test_unreachable_hub_is_one_line(folder: Path, hub: Hub, publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    code, _, err = publish(folder)
    assert (code, err.count("\n"), NAME in err) == (EXIT_FAILED, 1, True)


@pytest.mark.parametrize("answer", [{}, [1, 2], "x", {"url": 7}, {"url": "\x1b[2J"}])
def test_answer_of_another_server_is_one_line(answer: object, folder: Path, hub: Hub, publish: Publish) -> None:
    hub.garbled = answer
    code, _, errors = publish(folder)
    assert code in (EXIT_FAILED, EXIT_INPUT)
    assert NAME in errors
    assert len(errors.splitlines()) == 1
    assert errors.strip().isprintable()


def test_only_model_folders_are_published(run: RunDirectory, folder: Path, tmp_path: Path, publish: Publish) -> None:
    (tmp_path / "empty").mkdir()
    for source, named in {
        run.path: "sousaphone export",
        tmp_path / "empty": "config.json",
        tmp_path / "no": "no",
    }.items():
        code, _, err = publish(source, "--dry-run")
        assert (code, err.count("\n"), named in err) == (EXIT_INPUT, 1, True)
    secret = tmp_path / "secret.safetensors"
    shutil.copy(folder / model_folder.ADAPTER, secret)

    def linked(path: Path) -> None:
        path.unlink()
        path.symlink_to(secret)

    for file, spoil in {
        "weights.pt": lambda path: path.write_bytes(b"pickle"),
        model_folder.ADAPTER: linked,
        model_folder.RESULTS: lambda path: path.write_text("{}"),
        model_folder.CARD: Path.unlink,
        model_folder.ADAPTER_CONFIG: lambda path: path.write_text("["),
    }.items():
        copy = tmp_path / f"without {file}"
        shutil.copytree(folder, copy)
        spoil(copy / file)
        code, _, err = publish(copy, "--dry-run")
        assert (code, err.count("\n"), file in err) == (EXIT_INPUT, 1, True), err


def test_paths_and_names_of_this_machine_are_not_published(folder: Path, hub: Hub, publish: Publish) -> None:
    change(folder, source="/home/ana/secret place/weights.pt", origin="local", licence="MIT")
    results = json.loads((folder / model_folder.RESULTS).read_text())
    results["trials"][0]["data"] |= {"notes": ["moved from train, player_ana"], "root": "/home/ana/takes"}
    (folder / model_folder.RESULTS).write_text(json.dumps(results))
    assert publish(folder)[0] == EXIT_OK
    uploaded = hub.repositories[f"models/{NAME}"]
    for name in model_folder.CONFIG, model_folder.RESULTS, model_folder.ADAPTER_CONFIG:
        assert not any(word in uploaded[name] for word in (b"player_ana", b"secret place", b"/home"))
    assert json.loads(uploaded[model_folder.CONFIG])["base_weights"]["source"] == "weights.pt"
    assert json.loads(uploaded[model_folder.ADAPTER_CONFIG])["base_model_name_or_path"] == "weights.pt"


@pytest.mark.parametrize("secret", [TOKEN, str(Path.home() / "takes")])
def test_card_with_the_token_or_a_path_is_refused(secret: str, folder: Path, hub: Hub, publish: Publish) -> None:
    card = folder / model_folder.CARD
    card.write_text(card.read_text() + secret)
    code, _, err = publish(folder)
    assert (code, model_folder.CARD in err, TOKEN in err) == (EXIT_INPUT, True, False)
    assert "export" not in err.partition("error:")[2]  # that would not help
    assert not hub.requests


def test_unknown_licence_of_weights_must_be_stated(folder: Path, publish: Publish, tmp_path: Path) -> None:
    for licence in (None, "All rights reserved", "CC-BY-NC-ND-4.0"):
        change(folder, source="/weights.pt", origin="local", licence=licence)
        code, _, err = publish(folder, "--dry-run")
        assert (code, "--licence" in err, err.count("\n")) == (EXIT_INPUT, True, 1)
    assert publish(folder, "--dry-run", "--licence", "../x")[0] == EXIT_INPUT
    assert publish(folder, "--licence", "cc-by-4.0", "--dry-run", str(tmp_path / "dry"))[0] == EXIT_OK
    assert header((tmp_path / "dry" / "model" / model_folder.CARD).read_bytes())["license"] == "cc-by-4.0"


def test_licences_are_reported(folder: Path, publish: Publish) -> None:
    change(folder, source="/weights.pt", origin="local", licence="CC-BY-NC-4.0")
    code, out, _ = publish(folder, "--dry-run")
    assert (code, "CC-BY-NC-4.0" in out, "commercial" in out, "data" in out) == (EXIT_OK, True, True, True)


def test_card_names_the_repository_and_keeps_the_users_text(folder: Path, hub: Hub, publish: Publish) -> None:
    card = folder / model_folder.CARD
    assert publish(folder)[0] == EXIT_OK
    assert f"sousaphone predict {NAME}".encode() in hub.repositories[f"models/{NAME}"][model_folder.CARD]
    card.write_text(card.read_text() + "\nRecorded in a *cellar*.\n")
    assert publish(folder)[0] == EXIT_OK
    assert hub.repositories[f"models/{NAME}"][model_folder.CARD] == card.read_bytes()
    assert publish(folder, "--licence", "mit")[0] == EXIT_OK
    found = hub.repositories[f"models/{NAME}"][model_folder.CARD]
    assert header(found)["license"] == "mit"
    assert b"Recorded in a *cellar*." in found


def test_card_shows_costs_without_directories(folder: Path, hub: Hub, publish: Publish) -> None:
    cost = RuntimeCost("torch", 0.5, 4, (Latency(1, 8.0, 9.0, 3),), 1.5, 1_000_000, 2_000_000)
    card = DeployCard("ast", 1.0, "A processor", (cost,), remark="/takes is missing", busy=37)
    results = json.loads((folder / model_folder.RESULTS).read_text())
    statement = dataclasses.replace(STATEMENT, baseline=None)
    text = model_card(ModelConfig.read(folder), results, statement, "adapter", card)
    (folder / model_folder.CARD).write_text(text)
    (folder / model_folder.RESULTS).write_text(json.dumps({**results, "deployment": dataclasses.asdict(card)}))
    (folder / "model.onnx").write_bytes(f"stack trace in {Path.home()}/model.py".encode())
    code, _, error = publish(folder)
    assert code == EXIT_INPUT
    assert "model.onnx" in error
    assert "export" in error.partition("error:")[2]
    (folder / "model.onnx").write_bytes(b"graph")
    assert publish(folder)[0] == EXIT_OK
    uploaded = hub.repositories[f"models/{NAME}"]
    for name in model_folder.CARD, model_folder.RESULTS:
        assert b"A processor" in uploaded[name]
        assert b"/takes" not in uploaded[name]
    assert b"37 %" in uploaded[model_folder.CARD]
    assert NAME.encode() in uploaded[model_folder.CARD]
    assert uploaded["model.onnx"] == b"graph"
    space = publishing.plan(folder, NAME, space=True).repositories[1].files
    assert "model/model.onnx" not in space  # the page does not read it
    assert f"model/{model_folder.CONFIG}" in space


def test_space_of_an_adapter_over_private_weights_is_refused(folder: Path, publish: Publish) -> None:
    change(folder, source="/weights.pt", origin="local", licence="MIT")
    code, _, err = publish(folder, "--space", "--dry-run")
    assert (code, "--merged" in err) == (EXIT_INPUT, True)
    assert publish(folder, "--dry-run")[0] == EXIT_OK
