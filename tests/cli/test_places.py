"""Runs and images that move, other working directories, "~", spaces, and names out of a file."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from command_line import Cli

from advprop.files.atomic import safe_name

TINY = ("--method", "vanilla", "--quiet", "--set", "training.num_epochs=1")
ON_PHOTOS = (
    *("--set", "data.kind=folder", "--set", "data.root=photos", "--set", "data.num_train=none"),
    *("--set", "data.image_size=8", "--set", "data.channels=1", "--set", "model.options.width=4"),
    *("--set", "training.batch_size=8"),
)


def next_line(out: str) -> list[str]:
    (line,) = [line for line in out.splitlines() if line.startswith("next: ")]
    return shlex.split(line.removeprefix("next: "))


def test_a_moved_run_works_from_any_folder(
    cli: Cli, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli("train", "digits", *TINY, *ON_PHOTOS, "--out", "begun").code == 0
    assert cli("evaluate", "begun", "--suite", "clean", "--json", "found.json").code == 0
    run, away = tmp_path / "moved to" / "my run", tmp_path / "away"
    away.mkdir()
    run.parent.mkdir()
    (tmp_path / "begun").rename(run)
    monkeypatch.chdir(away)

    again = cli("train", run / "config.json", "--resume")
    assert "already finished, nothing done" in again.out, again.err
    assert next_line(again.out) == ["advprop", "evaluate", str(run)]
    assert not (away / "runs").exists()
    evaluated = cli("evaluate", run, "--suite", "clean", "--json", run.parent / "found.json")
    assert evaluated.code == 0, evaluated.err
    exported = cli("export", run, "--out", "an export")
    assert next_line(exported.out)[:3] == ["advprop", "predict", "an export"]
    monkeypatch.chdir(tmp_path)
    reported = cli("report", run.parent / "found.json", "--out", away / "page.html")
    assert reported.code == 0, reported.err
    assert "vanilla" in (away / "page.html").read_text()  # and not the folder's name alone
    # evaluated where the run was, and seen from there
    (tmp_path / "there").mkdir()
    run.rename(tmp_path / "there" / "begun")
    (tmp_path / "found.json").rename(tmp_path / "there" / "found.json")
    monkeypatch.chdir(away)
    reported = cli("report", tmp_path / "there" / "found.json", "--out", "page.html")
    assert reported.code == 0, reported.err
    assert "digits" in (away / "page.html").read_text()


def test_home_is_known_behind_equals_signs(
    cli: Cli, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = [word.replace("data.root=", "data.root=~/") for word in ON_PHOTOS]
    assert cli("train", "digits", *TINY, *settings, "--out=~/run").code == 0
    assert (tmp_path / "run" / "result.json").is_file()
    tested = cli("evaluate", "~/run", "--data", "clean=~/photos", "--json", "~/found.json")
    assert tested.code == 0, tested.err
    assert json.loads((tmp_path / "found.json").read_text())["folder"] == str(tmp_path / "run")


def test_a_file_does_not_decide_where_a_run_is_written(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    config = json.loads(cli("recipes", "digits").out)
    config["recipe"] = "../../x"
    (tmp_path / "config.json").write_text(json.dumps(config))
    small = ("--set", "data.num_train=40", "--set", "model.options.width=4")
    ended = cli("train", tmp_path / "config.json", *TINY, *small)
    assert ended.code == 0, ended.err
    assert [path.name for path in (tmp_path / "here" / "runs").iterdir()] == ["x-vanilla-seed0"]
    assert {path.name for path in tmp_path.iterdir()} == {"here", "config.json"}


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("mnist5k", "advprop", "seed3"), "mnist5k-advprop-seed3"),
        (("..", "a/../b"), "unnamed-a_.._b"),
        (("", "a b\n\x1b[31m"), "unnamed-a_b_31m"),
        (("~", "ü" * 300), "unnamed-unnamed"),
        (("x" * 300,), "x" * 80),
    ],
    ids=["usual", "parents", "blanks", "others", "long"],
)
def test_names_of_folders_are_safe(words: tuple[str, ...], name: str) -> None:
    assert safe_name(*words) == name


def test_a_run_with_another_seed_is_no_resumption(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ("--set", "data.num_train=40", "--set", "model.options.width=4")
    assert cli("train", "digits", *TINY, *small, "--out", "base").code == 0
    ended = cli("train", "base/config.json", "--resume", "--seed", 1, "--quiet")
    assert ended.code == 0, ended.err
    assert (tmp_path / "runs" / "digits-vanilla-seed1" / "result.json").is_file()
    more = cli("train", "base/config.json", "--resume", "--set", "training.num_epochs=2")
    assert more.code == 0, more.err
    assert "2 epochs instead of 1, from epoch 2 on: the learning rate" in more.err
    forgotten = [word for word in (*TINY, *small) if word != "training.num_epochs=1"]
    forgotten.remove("--set")
    refused = cli("train", "digits", *forgotten, "--out", "base", "--resume")
    assert refused.code == 2
    assert "a run of 2 epochs" in refused.err
    refused = cli("train", "digits", *TINY, "--out", "base", "--resume")
    assert refused.code == 2
    assert "advprop train base/config.json --resume" in refused.err
