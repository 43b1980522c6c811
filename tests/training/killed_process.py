"""`advprop` in a process that `kill -9` ends during a step of its training.

    python killed_process.py STEP ARGUMENT...

With several processes under torchrun it is the one of rank 1, at its first start.
"""

from __future__ import annotations

import os
import signal
import sys

from advprop.cli.main import run
from advprop.training.trainer import Trainer

whole_step = Trainer.train_step


def killed(self: Trainer, *arguments: object) -> None:
    if self.position.step == step and not int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")):
        os.kill(os.getpid(), signal.SIGKILL)
    whole_step(self, *arguments)  # type: ignore[arg-type]


if __name__ == "__main__":
    step = int(sys.argv.pop(1))
    if os.environ.get("RANK", "1") == "1":
        Trainer.train_step = killed  # type: ignore[method-assign]
    run()
