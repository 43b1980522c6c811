"""`python -m advprop`, the form that `torchrun -m advprop` takes."""

from advprop.cli.main import run

if __name__ == "__main__":
    run()
