"""Around the steps on a GPU: attack gradients, resumed runs, the loader, the store, processes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from gpu_steps import measured
from gpu_subjects import CUDA, DEVICE, Scale, trainer_of, when_done
from loader import exhaust, our_batches
from measuring import Row, interleaved, row_of
from photographs import save_crops
from subjects import method_of

from advprop.attacks.objectives import TargetedLoss, gradient_of, untargeted
from advprop.attacks.threat_models import Linf
from advprop.auxiliary.branches import attack_mode
from advprop.config.overrides import apply_overrides
from advprop.config.run import RunConfig
from advprop.data.batches.loaders import test_batches
from advprop.methods.kept.store import PerturbationStore
from advprop.recipes.builtin import digits, mnist5k
from advprop.runs import train
from advprop.runs.folder import CHECKPOINTS, RESULT, load_run
from advprop.shapes import Batch
from advprop.training.checkpoint import Checkpoints

PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16, "tf32": None}


def attack_gradients(scale: Scale) -> Iterator[Row]:
    """Of trained nets in each precision, against float32 without TF32."""
    for name in ("vanilla", "advprop"):
        with tempfile.TemporaryDirectory() as folder:
            config = apply_overrides(
                mnist5k().with_method(name), [f"training.num_epochs={scale.epochs}"]
            )
            train(config, folder, quiet=True)
            run = load_run(Path(folder))
            model, data = run.model.to(DEVICE), run.load_data()
        batch = next(iter(test_batches(data.validation, batch_size=256)))
        batch = batch.to(DEVICE, memory_format=torch.contiguous_format)
        attack = replace(method_of("advprop").attack, targets=untargeted)  # type: ignore[attr-defined]
        attack = replace(attack, threat_model=Linf(0.1), step_size=0.025)
        with attack_mode(model):
            exact = found(model, batch, attack, "fp32")
            for precision in PRECISIONS:
                if precision == "tf32" and not CUDA:
                    continue
                gradient, moved = found(model, batch, attack, precision)
                case = f"small_resnet on mnist5k, {name}, {precision} against float32"
                signs = (gradient.sign() != exact[0].sign()).float().mean()
                zeros = (gradient == 0).float().mean() - (exact[0] == 0).float().mean()
                size = (moved.abs().mean() / exact[1].abs().mean() - 1).abs()
                share: dict[str, Any] = {"case": case, "unit": ""}
                yield Row(what="signs that differ", value=float(signs), target=0.05, **share)
                yield Row(what="zeros more", value=float(zeros), target=0.01, **share)
                yield Row(what="perturbation's size", value=float(size), target=0.02, **share)


def found(model: Any, batch: Batch, attack: Any, precision: str) -> tuple[torch.Tensor, ...]:
    """The attack's first gradient, and the perturbation that it ends with."""
    dtype = PRECISIONS.get(precision)
    allowed = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    try:
        with torch.autocast(DEVICE.type, dtype=dtype, enabled=dtype is not None):
            objective = TargetedLoss(model, batch.labels, untargeted, None)
            gradient = gradient_of(objective, batch.images)
            torch.manual_seed(0)
            moved = attack(model, batch.images, batch.labels) - batch.images
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = allowed
    return gradient, moved


def resumed(scale: Scale) -> Iterator[Row]:
    """Is a run that goes on from its first epoch the undisturbed one, bit for bit?"""
    for deterministic in (True, False):
        config = apply_overrides(
            digits(),
            [
                "training.num_epochs=2",
                "training.mixed_precision=bf16",
                f"training.deterministic={deterministic}",
            ],
        )
        with tempfile.TemporaryDirectory() as folder:
            undisturbed = weights_after(config, Path(folder))
            newest = Checkpoints(Path(folder) / CHECKPOINTS).by_step()[0]
            newest.unlink()
            (Path(folder) / RESULT).unlink()
            again = weights_after(config, Path(folder))
        differ = sum(not torch.equal(undisturbed[name], again[name]) for name in undisturbed)
        yield Row(
            what="tensors that differ",
            case=f"digits, advprop, resumed, training.deterministic={deterministic}",
            value=differ,
            unit="",
            target=0 if deterministic else None,
        )


def weights_after(config: RunConfig, folder: Path) -> dict[str, torch.Tensor]:
    """Weights and statistics at the end of the run in `folder`."""
    train(config, folder, resume=True, quiet=True)
    state = Checkpoints(folder / CHECKPOINTS).load_newest()
    assert state is not None
    return {name: tensor.cpu() for name, tensor in state["model"].items()}


def loader_and_step(scale: Scale) -> Iterator[Row]:
    """Images a second that a vanilla step takes over those that this machine's CPUs can give."""
    workers = torch.multiprocessing.cpu_count() if CUDA else 0
    subject = scale.large[0]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        save_crops(root / "train", count=scale.pictures, size=(400, 300))
        save_crops(root / "val", count=2, size=(400, 300))
        batches = our_batches(root, subject.image_size, workers)
        began = time.perf_counter()
        exhaust(batches)
        given = scale.pictures / (time.perf_counter() - began)
    case = f"{subject}, JPEG files of 400 x 300"
    yield Row(what=f"loader, {workers} workers", value=given, unit="images/s", case=case)
    with trainer_of(subject, "vanilla") as (trainer, batch):
        seconds, _ = measured(trainer, batch, scale.repeats)
    ratios = [subject.batch_size / second / given for second in seconds]
    yield row_of("a vanilla step asks for", ratios, against="the loader", case=case, target=1.0)


def store(scale: Scale) -> Iterator[Row]:
    """What `advprop_lean` reads and writes for a batch, against a vanilla step."""
    subject = scale.large[0]
    shape = (3, subject.image_size, subject.image_size)
    with tempfile.TemporaryDirectory() as folder:
        kept = PerturbationStore(
            num_images=4 * subject.batch_size, shape=shape, epsilon=4 / 255,
            path=Path(folder) / "perturbations.bin",
        )  # fmt: skip
        indices = torch.arange(subject.batch_size)
        moved = torch.zeros(subject.batch_size, *shape, device=DEVICE)
        with trainer_of(subject, "vanilla") as (trainer, batch):
            actions: dict[str, Callable[[], object]] = {
                "read": lambda: kept.encoding.decoded(kept.read(indices, 1)[0].to(DEVICE)),
                "write": lambda: kept.write(indices, moved, 1),
                "vanilla": lambda: trainer.train_step(batch),
            }
            kept.write(indices, moved, 0)
            times = interleaved(actions, repeats=scale.repeats, clock=when_done)
    for what in ("read", "write"):
        yield times.ratio(what, "vanilla", case=f"{subject}, store", target=0.1)


def two_processes(scale: Scale) -> Iterator[Row]:
    """Two on one GPU are refused at once; on CPUs, or with two GPUs, they train."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc_per_node", "2", "-m", "advprop", "train", "digits"]
        done = subprocess.run(
            [*command, "--set", "training.num_epochs=1", "--out", f"{folder}/run"],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    expected = "GPUs" if CUDA and torch.cuda.device_count() < 2 else ""
    is_right = expected in done.stderr and (done.returncode == 0) == (not expected)
    case = "torchrun --nproc_per_node 2, digits"
    what = "refused with a message" if expected else "trained"
    yield Row(what=what, case=case, value=float(not is_right), unit="wrong", target=0)
