"""Branch soups from the command line."""

from __future__ import annotations

from pathlib import Path

from command_line import QUICK, Cli, contents


def test_soups_are_tested_recorded_and_exported(cli: Cli, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert cli("train", "digits", "--method", "advprop", "--out", run, *QUICK).code == 0
    ended = cli("evaluate", run, "--mix", "0.5", "--suite", "clean,noise,adversarial")
    assert ended.code == 0
    assert "soup with weight 0 of branch adversarial: clean" in ended.out
    assert "soup with weight 0.5 of branch adversarial: clean" in ended.out
    assert f"recorded in {run}" in ended.out
    ended = cli("export", run, "--out", tmp_path / "export", "--mix", "0.5")
    assert ended.code == 0
    assert "outputs equal those of the branch soup of weight 0.5 bit for bit" in ended.out


def test_without_branches_there_is_one_message(cli: Cli, tmp_path: Path) -> None:
    run, export = tmp_path / "run", tmp_path / "export"
    cli("train", "digits", "--method", "vanilla", "--out", run, *QUICK)
    cli("export", run, "--out", export)
    before = contents(tmp_path)
    commands = (
        ("evaluate", run, "--mix", "0.5"),
        ("evaluate", export, "--mix", "0.5"),
        ("export", run, "--out", tmp_path / "mixed", "--mix", "0.5"),
    )
    for command in commands:
        ended = cli(*command)
        assert ended.code == 2
        assert ended.err.count("\n") == 1
        assert "the model has no branches to mix; name a run of a method with" in ended.err
    ended = cli("evaluate", run, "--mix", "half")
    assert ended.code == 2
    assert 'advprop: --mix "half": could not convert' in ended.err
    assert contents(tmp_path) == before
