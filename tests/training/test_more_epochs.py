"""A run that is given more epochs: what happens to its learning rate, its results, its bits."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from run_folders import cut_off, log_of, weights_of

from advprop.config import RunConfig
from advprop.config.overrides import apply_overrides
from advprop.recipes.builtin import digits
from advprop.runs import train
from advprop.runs.folder import is_finished, load_run
from advprop.training.checkpoint import Checkpoints
from advprop.training.trainer import Trainer

STEPS = 3  # an epoch


def quick(epochs: int, *settings: str, method: str = "vanilla") -> RunConfig:
    base = ["data.num_train=60", "training.batch_size=20", "model.options.width=4"]
    base += ["training.warmup_epochs=0", f"training.num_epochs={epochs}"]
    return apply_overrides(digits().with_method(method), [*base, *settings])


def rates(folder: Path) -> list[float]:
    return [entry["learning_rate"] for entry in log_of(folder)]


@pytest.mark.parametrize(
    "schedule",
    [
        pytest.param(("training.schedule=constant",), id="constant"),
        pytest.param(
            ("training.schedule=staircase", "training.decay_epochs=1.5", "training.ema_decay=0.9"),
            id="staircase",
        ),
        pytest.param(
            ("training.schedule=milestones", "training.milestones=[1, 2, 3]"), id="milestones"
        ),
    ],
)
def test_schedules_without_an_end_give_the_bits_of_the_longer_run(
    schedule: tuple[str, ...], tmp_path: Path
) -> None:
    train(quick(4, *schedule), tmp_path / "whole", quiet=True)
    train(quick(2, *schedule), tmp_path / "run", quiet=True)
    train(quick(4, *schedule), tmp_path / "run", resume=True, more_epochs=True, quiet=True)
    one, other = weights_of(tmp_path / "whole"), weights_of(tmp_path / "run")
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert rates(tmp_path / "run") == rates(tmp_path / "whole")


@pytest.mark.parametrize("cut", [None, 4], ids=["finished", "unfinished"])
def test_cosine_goes_on_as_in_a_run_of_all_the_epochs(
    cut: int | None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run, peak = tmp_path / "run", 0.2
    if cut:
        cut_off(quick(2), run, after=cut)
    else:
        train(quick(2), run, quiet=True)
    from_epoch = 1 if cut else 2
    result = train(quick(4), run, resume=True, more_epochs=True)

    def rate(step: int, epochs: int) -> float:
        return peak / 2 * (1 + math.cos(math.pi * step / (epochs * STEPS)))

    expected = [rate(STEPS * epoch - 1, 2 if epoch <= from_epoch else 4) for epoch in (1, 2, 3, 4)]
    assert rates(run) == pytest.approx(expected)
    told = f"from epoch {from_epoch + 1} on: the learning rate is now that of a run of 4 epochs"
    assert told in capfd.readouterr().err
    (entry,) = result["history"]
    assert told in entry["change"]
    assert (entry["epoch"], entry["num_epochs"]) == (from_epoch, [2, 4])


def test_results_of_before_are_kept_and_a_kill_changes_no_bit(tmp_path: Path) -> None:
    for name in ("whole", "cut"):
        train(quick(2), tmp_path / name, quiet=True)
        (tmp_path / name / "test.json").write_text("{}")
    before = (tmp_path / "cut" / "result.json").read_text()
    train(quick(4), tmp_path / "whole", resume=True, more_epochs=True, quiet=True)
    cut_off(quick(4), tmp_path / "cut", resume=True, more_epochs=True, after=2 * STEPS + 1)
    assert not is_finished(tmp_path / "cut")
    assert not (tmp_path / "cut" / "test.json").exists()  # of other weights
    result = train(quick(4), tmp_path / "cut", resume=True, more_epochs=True, quiet=True)
    assert (tmp_path / "cut" / "result-2-epochs.json").read_text() == before
    assert (tmp_path / "cut" / "test-2-epochs.json").exists()
    assert (result["epochs"], len(result["history"])) == (4, 1)
    one, other = weights_of(tmp_path / "whole"), weights_of(tmp_path / "cut")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_damaged_history_is_refused_and_not_replaced(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(quick(1), run, quiet=True)
    for text in ("{", '{"history": 3}', '{"history": [1]}', "{}"):
        (run / "history.json").write_text(text)
        with pytest.raises(ValueError, match=r"history\.json: damaged, .*; move it away"):
            train(quick(2), run, resume=True, more_epochs=True, quiet=True)
        assert (run / "history.json").read_text() == text
        assert is_finished(run)


@pytest.mark.parametrize("finished", [True, False], ids=["finished", "unfinished"])
def test_more_epochs_have_to_be_asked_for(finished: bool, tmp_path: Path) -> None:
    train(quick(1), tmp_path, quiet=True)
    if not finished:
        (tmp_path / "result.json").unlink()
    with pytest.raises(ValueError, match=r"a run of 1 epochs.* has 3") as caught:
        train(quick(3), tmp_path, resume=True, quiet=True)
    for way in ("--set training.num_epochs=1 to go on", "--set training.num_epochs=3 to give"):
        assert way in str(caught.value)
    assert load_run(tmp_path).config == quick(1)
    assert len(rates(tmp_path)) == 1


def test_fewer_epochs_and_other_settings_are_refused(tmp_path: Path) -> None:
    run = tmp_path / "a run"
    train(quick(2), run, quiet=True)
    with pytest.raises(ValueError, match="more epochs, not fewer") as caught:
        train(quick(1), run, resume=True, more_epochs=True, quiet=True)
    assert f"advprop train '{run}/config.json' --resume" in str(caught.value)
    with pytest.raises(ValueError, match=r"learning_rate: saved 0\.2, wanted 0\.1"):
        train(
            quick(4, "training.learning_rate=0.1"), run, resume=True, more_epochs=True, quiet=True
        )
    assert is_finished(run)


@pytest.mark.parametrize(
    ("method", "settings", "reason"),
    [
        ("adversarial_then_clean", (), "adversarial_then_clean with method.adversarial_share"),
        ("advprop", ("method.attack.first_steps=0",), "method.attack.first_steps"),
        ("advprop_lean", (), "the perturbations that it carried were deleted"),
    ],
    ids=["phases", "growing", "advprop_lean"],
)
def test_methods_that_cannot_go_on_are_refused_by_name(
    method: str, settings: tuple[str, ...], reason: str, tmp_path: Path
) -> None:
    train(quick(1, *settings, method=method), tmp_path, quiet=True)
    with pytest.raises(ValueError, match=reason):
        train(
            quick(2, *settings, method=method), tmp_path, resume=True, more_epochs=True, quiet=True
        )
    assert is_finished(tmp_path)


def test_an_unfinished_run_with_carried_perturbations_goes_on(tmp_path: Path) -> None:
    cut_off(quick(2, method="advprop_lean"), tmp_path, after=STEPS)
    config = quick(3, method="advprop_lean")
    assert train(config, tmp_path, resume=True, more_epochs=True, quiet=True)["epochs"] == 3


def test_settings_that_are_gone_or_damaged_are_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_step = Trainer.train_step

    def damaging(self: Trainer, *arguments: object) -> object:
        (tmp_path / "config.json").unlink(missing_ok=True)
        (tmp_path / "data.json").write_text("{")
        return whole_step(self, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", damaging)
        train(quick(1), tmp_path, quiet=True)
    assert load_run(tmp_path).config == quick(1)
    (tmp_path / "config.json").unlink()
    (tmp_path / "result.json").unlink()
    with pytest.warns(UserWarning, match=r"config\.json is gone"):
        train(quick(1), tmp_path, resume=True, more_epochs=True, quiet=True)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="delete it, and the same command goes on"):
        train(quick(1), tmp_path, resume=True, more_epochs=True, quiet=True)


def test_what_kills_leave_is_swept_by_the_next_owner(tmp_path: Path) -> None:
    train(quick(3, "training.keep_checkpoints=3"), tmp_path, quiet=True)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "perturbations.bin").write_bytes(b"large")
    for name in (".report.html.0a1b2c3d", ".test.json.0a1b2c3d", "checkpoints/.step-9.pt.0a1b2c3d"):
        (tmp_path / f"{name}.unfinished").touch()
    train(quick(3), tmp_path, resume=True, more_epochs=True, quiet=True)
    assert len(Checkpoints(tmp_path / "checkpoints").by_step()) == 2
    assert not (tmp_path / "kept").exists()
    assert not list(tmp_path.rglob("*.unfinished"))
