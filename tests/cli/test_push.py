"""`advprop export --push`, against a stand-in for the Hugging Face Hub."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import QUICK, Cli
from hub_stand_in import READER, WRITER, Hub, running_hub
from huggingface_hub import ModelCard, constants

from advprop.exports.card import CARD
from advprop.exports.push import push_export


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)  # HF_ENDPOINT was read at import
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", WRITER)
        yield hub


@pytest.fixture
def run(cli: Cli, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    quick = (*QUICK, "--set", "evaluation.attack.num_steps=1")
    assert cli("train", "digits", "--method", "vanilla", "--out", folder, *quick).code == 0
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_export_is_uploaded_with_its_results(
    cli: Cli, hub: Hub, run: Path, tmp_path: Path
) -> None:
    assert cli("evaluate", run).code == 0
    ended = cli("export", run, "--out", tmp_path / "export", "--push", "lab/digits")
    assert (ended.code, ended.err) == (0, "")
    assert f"uploaded to {hub.address}/lab/digits" in ended.out
    assert hub.repositories == {"lab/digits": files(tmp_path / "export")}
    assert hub.settings == {}  # the Hub's own visibility, no other settings
    card = ModelCard(hub.repositories["lab/digits"][CARD].decode())
    names = [(result.metric_name, result.dataset_name) for result in card.data.eval_results]
    suites = [f"{suite} accuracy" for suite in ("clean", "noise", "adversarial")]
    assert names == [("clean accuracy", "digits validation"), *((s, "digits test") for s in suites)]
    again = cli("export", run, "--out", tmp_path / "again", "--push", "lab/digits")
    assert again.code == 0
    assert hub.repositories == {"lab/digits": files(tmp_path / "again")}


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("hf_other", "does not accept the token (401), log in again with hf auth login"),
        (READER, "the token may not write there (403), use a name of yours"),
    ],
)
def test_a_refused_upload_keeps_the_export(
    cli: Cli,
    hub: Hub,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    token: str,
    message: str,
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    out = tmp_path / "export"
    ended = cli("export", run, "--out", out, "--push", "lab/digits")
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert message in ended.err
    assert f"the export lies in {out}, upload it with hf upload lab/digits {out}" in ended.err
    assert (out / CARD).is_file()
    assert hub.repositories == {}


@pytest.mark.parametrize(
    ("token", "name", "message"),
    [
        ("", "lab/digits", "lab/digits: no token for the Hugging Face Hub; log in with hf auth"),
        (WRITER, "lab/digits/net", "Repo id must be in the form"),
        (WRITER, "lab/a b", "Repo id must"),
    ],
)
def test_what_cannot_be_uploaded_is_told_before_the_export(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str, name: str, message: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    ended = cli("export", tmp_path / "run", "--out", tmp_path / "export", "--push", name)
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert message in ended.err
    assert list(tmp_path.iterdir()) == []


def test_a_hub_that_cannot_be_reached_is_told(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / CARD).write_text("---\ntags: [advprop]\n---\n")
    with pytest.raises(ValueError, match=r"Invalid metadata in README\.md\. - no results; the"):
        push_export(tmp_path, "lab/digits")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", nobody)
    with pytest.raises(ValueError, match=r"the Hub cannot be reached \(.+\), check the connection"):
        push_export(tmp_path, "lab/digits")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE is set, unset it; the export lies in"):
        push_export(tmp_path, "lab/digits")
