"""Runs the command line as `python -m advprop`, which `torchrun -m advprop` needs."""

from advprop.cli.main import run

if __name__ == "__main__":
    run()
