"""A user's mistake gives one clear message and exit code 2, and nothing on disk is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command_line import QUICK, Cli, contents

Arguments = Callable[[Path], list[object]]


def _train(*settings: str, recipe: str = "digits") -> Arguments:
    def arguments(folder: Path) -> list[object]:
        flags = [flag for setting in settings for flag in ("--set", setting.format(folder))]
        return ["train", recipe, "--out", folder / "new", *flags]

    return arguments


WRONG = {
    "unknown recipe": (lambda f: ["train", "mnist5"], "did you mean mnist5k"),
    "unknown method": (
        lambda f: ["train", "digits", "--method", "advpropp"],
        "choose from vanilla",
    ),
    "removed method": (
        lambda f: ["train", "digits", "--method", "carried"],
        "this was removed, for the reasons in docs/reproducing.md; use advprop_lean",
    ),
    "unknown setting": (_train("training.epochs=3"), "training.num_epochs"),
    "setting without value": (_train("training.num_epochs"), "PATH=VALUE"),
    "setting of another method": (
        lambda f: [*_train("method.attack.num_steps=1")(f), "--method", "vanilla"],
        "method.attack.num_steps",
    ),
    "mixtures of carried images": (
        lambda f: [*_train("data.mixing.mixup=0.5")(f), "--method", "advprop_lean"],
        "advprop: method advprop_lean: each image carries a perturbation",
    ),
    "text for a number": (_train("training.num_epochs=ten"), "training.num_epochs"),
    "half an epoch": (_train("training.num_epochs=1.5"), "training.num_epochs"),
    "no epochs": (_train("training.num_epochs=0"), "at least 1"),
    "no batch": (_train("training.batch_size=0"), "at least 1"),
    "endless rate": (_train("training.learning_rate=-1"), "above 0"),
    "unknown optimiser": (_train("training.optimizer=sgdd"), "sgdd"),
    "epsilon in grey levels": (_train("method.attack.threat_model.epsilon=4"), "4/255"),
    "no fraction": (_train("method.attack.step_size=1/0"), "4/255"),
    "negative steps": (_train("method.attack.num_steps=-1"), "at least 0"),
    "unknown data set": (_train("data.name=mnist"), "mnist5k"),
    "too many training images": (_train("data.num_train=100000"), "100000"),
    "too few training images": (_train("data.num_train=3"), "3"),
    "unknown model": (_train("model.name=resnet8"), "resnet8"),
    "unknown model option": (_train("model.options.depth=3"), "depth"),
    "negative seed": (lambda f: ["train", "digits", "--seed", "-1"], "seed"),
    "no folder named": (_train(recipe="from_scratch"), "data.root=DIR"),
    "missing folder": (_train("data.root={}/none", recipe="from_scratch"), "none"),
    "empty path": (_train("data.root=", recipe="from_scratch"), "no path given"),
    "folder for a table": (_train("data.kind=table", "data.table={}"), "no CSV file in UTF-8"),
    "no methods": (
        lambda f: ["compare", "digits", "--methods", "", "--out", f / "new"],
        "no method named: choose from vanilla",
    ),
    "seed of a comparison": (
        lambda f: ["compare", "digits", "--set", "seed=3", "--out", f / "new"],
        "set --seeds N instead",
    ),
    "one class only": (_train("data.root={}/one", recipe="from_scratch"), "one class"),
    "empty class": (_train("data.root={}/empty_class", recipe="from_scratch"), "green"),
    "unreadable image": (_train("data.root={}/unreadable", recipe="from_scratch"), "bad.png"),
    "out is a file": (lambda f: ["train", "digits", "--out", f / "file"], "a file"),
    "out cannot be written": (
        lambda f: ["train", "digits", "--out", "/proc/advprop", *QUICK],
        "/proc/advprop",
    ),
    "out holds other things": (lambda f: ["train", "digits", "--out", f / "one"], "not empty"),
    "out holds a run": (lambda f: ["train", "digits", "--out", f / "run"], "--resume"),
    "resume with other settings": (
        lambda f: ["train", "digits", "--out", f / "run", "--resume", "--seed", 1],
        "seed: saved 0, wanted 1",
    ),
    "missing function": (lambda f: ["train", f"{f}/file.py:recipe"], "file.py"),
    "damaged configuration": (lambda f: ["train", f / "broken.json"], "not JSON"),
    "missing run": (lambda f: ["evaluate", f / "none"], "no such folder"),
    "no run": (lambda f: ["evaluate", f / "one"], "no run here"),
    "unknown suite": (lambda f: ["evaluate", f / "run", "--suite", "clen"], "choose from clean"),
    "unknown branch": (
        lambda f: ["evaluate", f / "run", "--eval-branch", "aux"],
        "this model has clean, adversarial",
    ),
    "no restarts": (lambda f: ["evaluate", f / "run", "--restarts", "0"], "evaluation.restarts 0"),
    "curve in grey levels": (
        lambda f: ["evaluate", f / "run", "--epsilons", "1/255,4"],
        "did you mean 4/255",
    ),
    "curve of words": (lambda f: ["evaluate", f / "run", "--l2-epsilons", "big"], "l2_epsilons"),
    "setting of a training": (
        lambda f: ["evaluate", f / "run", "--set", "training.num_epochs=3"],
        "no setting of an evaluation",
    ),
    "transfer from nowhere": (
        lambda f: ["evaluate", f / "run", "--suite", "transfer"],
        "--source OTHER_RUN",
    ),
    "source without transfer": (
        lambda f: ["evaluate", f / "run", "--source", f / "run"],
        "--suite transfer",
    ),
    "branches without attack": (
        lambda f: ["evaluate", f / "run", "--suite", "clean", "--all-branches"],
        "adversarial",
    ),
    "no average kept": (lambda f: ["evaluate", f / "run", "--weights", "ema"], "ema_decay"),
    "unknown weights": (
        lambda f: ["evaluate", f / "run", "--weights", "first"],
        "choose from last",
    ),
    "more classes than the model": (
        lambda f: ["evaluate", f / "run", "--suite", "clean", "--data", f"clean={f / 'one'}"],
        "red",
    ),
    "truncated checkpoints": (lambda f: ["evaluate", f / "truncated"], "is intact"),
    "another architecture": (lambda f: ["evaluate", f / "foreign"], "another architecture"),
    "export over something": (lambda f: ["export", f / "run", "--out", f / "one"], "not empty"),
    "unknown format": (
        lambda f: ["export", f / "run", "--out", f / "new", "--format", "tflite"],
        "choose from hub, onnx, torch_export",
    ),
    "not a picture": (lambda f: ["predict", f / "run", f / "file"], "1 of 1 images"),
    "missing picture": (lambda f: ["predict", f / "run", f / "none.png"], "no such file"),
    "folder without pictures": (
        lambda f: ["predict", f / "run", f / "run"],
        "no image in this folder",
    ),
    "prediction into nowhere": (
        lambda f: ["predict", f / "run", f / "one", "--json", f / "none" / "found.json"],
        "none",
    ),
    "unknown method to compare": (
        lambda f: ["compare", "digits", "--methods", "vanilla,foo", "--out", f / "c"],
        'method "foo"',
    ),
    "setting that no method has": (
        lambda f: ["compare", "digits", "--set", "method.attack.foo=1", "--out", f / "c"],
        "method.attack.foo",
    ),
    **{
        f"vary {varied}": (
            lambda f, varied=varied: ["compare", "digits", "--vary", varied, "--out", f / "c"],
            expected,
        )
        for varied, expected in (
            ("method.attack.epsilon=1,2", "or method.attack.threat_model.epsilon?"),
            ("training.learning_rat=1,2", "did you mean training.learning_rate"),
            ("training.learning_rate=1,-2", "learning_rate -2.0: give a number above 0"),
            ("training.learning_rate=1", "write PATH=A,B with two values or more"),
            ("seed=1,2", "--vary seed: only settings of method"),
        )
    },
    "compare into a folder below a file": (
        lambda f: ["compare", "digits", "--out", f / "file" / "c"],
        "file: a file, not a folder; give another --out",
    ),
    "train into a folder below a file": (
        lambda f: ["train", "digits", "--out", f / "file" / "c"],
        "file: a file, not a folder; give another --out",
    ),
    **{
        f"part {part}": (
            lambda f, part=part: ["compare", "digits", "--part", part, "--out", f / "c"],
            f"part {part}: give K/N with K from 1 to N, as in 2/8",
        )
        for part in ("0/2", "3/2", "2", "a/b", "-1/2")
    },
    "no seeds": (lambda f: ["compare", "digits", "--seeds", 0, "--out", f / "c"], "at least 1"),
    "report of nothing": (lambda f: ["report", f / "one"], "in parts writes it without --part"),
}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small run, damaged copies of it, and folders of images with faults."""
    import shutil

    from PIL import Image

    from advprop.config.overrides import apply_overrides
    from advprop.recipes.builtin import digits
    from advprop.runs import train

    folder = tmp_path_factory.mktemp("scene")
    train(apply_overrides(digits(), list(QUICK[1:4:2])), folder / "run", quiet=True)
    for copy in ("truncated", "foreign"):
        shutil.copytree(folder / "run", folder / copy)
    for checkpoint in (folder / "truncated" / "checkpoints").glob("step-*.pt"):
        checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    for checkpoint in (folder / "foreign" / "checkpoints").glob("step-*.pt"):
        state = torch.load(checkpoint, weights_only=True)
        state["model"].popitem()
        torch.save(state, checkpoint)
    for root, classes in (
        ("one", ("red",)),
        ("empty_class", ("blue", "green", "red")),
        ("unreadable", ("blue", "red")),
    ):
        for name in classes:
            (folder / root / name).mkdir(parents=True)
            for number in range(0 if name == "green" else 5):
                Image.new("RGB", (20, 20), (number, 0, 90)).save(
                    folder / root / name / f"{number}.png"
                )
    (folder / "unreadable" / "red" / "bad.png").write_text("no picture")
    (folder / "file").write_text("something")
    (folder / "broken.json").write_text("{")
    return folder


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_gives_one_message_and_loses_nothing(
    mistake: str, cli: Cli, scene: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, expected = WRONG[mistake]
    before = contents(scene)
    ended = cli(*arguments(scene))
    assert ended.code == 2, ended
    assert expected in ended.err
    assert "Traceback" not in ended.err
    assert ended.err.startswith("advprop: ")
    assert ended.err.count("advprop: ") == 1 + ended.err.count("advprop: warning")
    assert contents(scene) == before
    assert not (scene / "new").exists()
    assert not list(tmp_path.iterdir())


def test_ctrl_c_is_told_and_waits_for_no_other_process(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loader workers and pools would keep the process alive after `sys.exit`."""
    codes: list[int] = []

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def at_once(code: int) -> None:
        codes.append(code)
        raise SystemExit(code)

    monkeypatch.setattr("advprop.comparisons.comparing.compare", interrupted)
    monkeypatch.setattr("os._exit", at_once)
    ended = cli("compare", "digits", "--out", tmp_path / "c")
    assert codes == [ended.code] == [130]
    assert f"{tmp_path / 'c'}: run the same command again to continue" in ended.err
    assert ended.err.endswith("advprop: interrupted; what was finished is kept\n")
