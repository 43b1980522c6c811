"""What only a GPU shows, in ten minutes: eight blocks, each within its share of the time.

    python benchmarks/gpu.py [--quick] [--out benchmarks/results-gpu.json]

A line of JSON a row is written as soon as it is measured, so that a machine that goes away takes
nothing with it; a block that has used up its seconds says so and the next one begins. Without CUDA
there are no results; `--quick` then runs the same code on the CPU with tiny nets, to try it.

Nets are ResNet-50 and EfficientNet-B0, 256 images of 224 pixels, bfloat16, channels_last; seconds
are the clock's, with the device done; what is compiled or chosen in the first steps is not counted.
A whole step is `Trainer.train_step`: moving the batch, gradients, a look at the loss, clipping, the
optimiser's step and the average of weights.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from loader import exhaust, our_batches
from measuring import Row, interleaved, row_of
from photographs import save_crops
from showing import machine, plain, print_table, told, versions
from steps import bound
from subjects import EFFICIENTNET_B0, LAYOUTS, NUM_CLASSES, RESNET18, Subject, method_of
from torch.profiler import ProfilerActivity, profile

from advprop.attacks.objectives import Classification, gradient_of, untargeted
from advprop.attacks.threat_models import Linf
from advprop.auxiliary.modes import attack_mode
from advprop.config.attacks import PAPER_ATTACK
from advprop.config.methods import METHODS, method_config
from advprop.config.overrides import apply_overrides
from advprop.config.run import ModelConfig, RunConfig
from advprop.data.batches.loaders import test_batches
from advprop.data.preprocessing import Preprocessing
from advprop.data.splits import ArraySplit, ImageData
from advprop.methods.kept.store import PerturbationStore
from advprop.recipes.builtin import digits, mnist5k
from advprop.runs import train
from advprop.runs.folder import CHECKPOINTS, RESULT, load_run
from advprop.runs.trainer import build_trainer
from advprop.shapes import Batch
from advprop.training.checkpoint import Checkpoints
from advprop.training.engine import build_accelerator, compile_model
from advprop.training.trainer import Trainer

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
LARGE = tuple(
    replace(subject, image_size=224, batch_size=256)
    for subject in (replace(RESNET18, architecture="resnet50"), EFFICIENTNET_B0)
)
COMPARED = (
    ("vanilla", 0),
    ("adversarial", 1),
    ("mixed", 1),
    ("advprop", 1),
    ("advprop", 5),
    ("fast", 1),
    ("advprop_lean", 1),
    ("carried", 1),
)
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
BOUNDS = {"adversarial": 1, "mixed": 2, "advprop": 2}
"""Training passes of the methods whose step has a bound: attack steps come on top."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is measured: everything, or tiny nets that only try the code."""

    small: Subject
    large: tuple[Subject, ...]
    repeats: int
    epochs: int
    pictures: int


WHOLE = Scale(
    small=replace(RESNET18, image_size=64, batch_size=40), large=LARGE, repeats=10, epochs=3,
    pictures=4096,
)  # fmt: skip
_TINY = Subject(architecture="small_resnet", image_size=32, batch_size=10)
TINY = Scale(
    small=_TINY,
    large=(_TINY,),
    repeats=1,
    epochs=1,
    pictures=64,
)


def when_done() -> float:
    """The clock, once the device has done what it was given."""
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter()


@contextmanager
def trainer_of(
    subject: Subject, name: str, num_steps: int = 1, *changes: str
) -> Iterator[tuple[Trainer, Batch]]:
    """A trainer of the method called `name`, and a batch of noise as a loader hands it over."""
    method = method_config(name, PAPER_ATTACK.model_copy(update={"num_steps": num_steps}))
    settings = [f"training.batch_size={subject.batch_size}", "training.num_epochs=100000"]
    settings += ["training.mixed_precision=bf16", "training.ema_decay=0.999"]
    config = mnist5k().model_copy(
        update={
            "model": ModelConfig(name=subject.architecture, mean=MEAN, std=STD),
            "method": method,
        }
    )
    config = apply_overrides(config, [*settings, *changes])
    batch = subject.batch(method_of(name))
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(
            config, noise(subject), Path(folder), build_accelerator(config.training)
        )
        trainer.model.train()
        yield trainer, batch.pin_memory() if CUDA else batch


def noise(subject: Subject) -> ImageData:
    """A batch of noise as a data set."""
    shape = (3, subject.image_size, subject.image_size)
    pixels = torch.randint(256, (subject.batch_size, *shape), dtype=torch.uint8)
    labels = torch.arange(subject.batch_size) % NUM_CLASSES
    split = ArraySplit(pixels=pixels, labels=labels)
    return ImageData(
        name="noise",
        class_names=tuple(str(number) for number in range(NUM_CLASSES)),
        preprocessing=Preprocessing(image_shape=shape),
        train=split,
        validation=split,
        test=None,
    )


def launches_and_waits(scale: Scale) -> Iterator[Row]:
    """Of a whole step of every method: kernels, and places where the host waits for the device."""
    for name in METHODS:
        with trainer_of(scale.small, name) as (trainer, batch):
            for _ in range(2):
                trainer.train_step(batch)
            launched = {"case": f"{scale.small}, a whole step", "unit": "launches"}
            activity = ProfilerActivity.CUDA if CUDA else ProfilerActivity.CPU
            with profile(activities=[activity]) as profiled:
                trainer.train_step(batch)
            names = [event.name for event in profiled.events()]
            kernels = [name for name in names if "LaunchKernel" in name or not CUDA]
            yield Row(what=name, value=len(kernels), **launched)
            if CUDA:
                waits = sorted(waits_of(lambda: trainer.train_step(batch)))
                yield Row(
                    what=f"{name}, waits",
                    case=launched["case"],
                    value=len(waits),
                    unit="",
                    target=1,  # the look at the loss
                    note="; ".join(waits),
                )


def waits_of(step: Callable[[], object]) -> list[str]:
    """Where `step` makes the host wait: file and line, one for each time."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return [
        f"{Path(warning.filename).name}:{warning.lineno}"
        for warning in caught
        if "synchroniz" in str(warning.message)
    ]


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
            objective = Classification(model, batch.labels, untargeted, None)
            gradient = gradient_of(objective, batch.images)
            torch.manual_seed(0)
            moved = attack(model, batch.images, batch.labels) - batch.images
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = allowed
    return gradient, moved


def cost_of_steps(scale: Scale) -> Iterator[Row]:
    """Seconds and peak memory of whole steps, against vanilla's."""
    for subject in scale.large:
        seconds: dict[str, list[float]] = {}
        memory: dict[str, float] = {}
        for name, num_steps in COMPARED:
            what = f"{name}, K = {num_steps}" if num_steps else name
            with trainer_of(subject, name, num_steps) as (trainer, batch):
                seconds[what], memory[what] = measured(trainer, batch, scale.repeats)
            case, spent = f"{subject}, whole steps", sum(seconds[what])
            if name == "vanilla":
                rate = [subject.batch_size / second for second in seconds[what]]
                yield row_of(what, rate, case=case, unit="images/s", seconds=spent)
                if CUDA:
                    yield Row(what=f"{what}, memory", value=memory[what], unit="GB", case=case)
                continue
            against: dict[str, Any] = {"case": case, "against": "vanilla"}
            base = sorted(seconds["vanilla"])[scale.repeats // 2]
            ratios = [second / base for second in seconds[what]]
            target = 1.03 * bound(BOUNDS[name], num_steps) if name in BOUNDS else None
            yield row_of(what, ratios, target=target, seconds=spent, **against)
            if CUDA:
                share = memory[what] / memory["vanilla"]
                target = 1.1 if name == "advprop" else None
                yield Row(what=f"{what}, memory", value=share, target=target, **against)


def measured(trainer: Trainer, batch: Batch, repeats: int) -> tuple[list[float], float]:
    """Seconds of each step after three that warm up, and gigabytes at the peak."""
    for _ in range(min(3, repeats)):
        trainer.train_step(batch)
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(repeats):
        began = when_done()
        trainer.train_step(batch)
        seconds.append(when_done() - began)
    return seconds, torch.cuda.max_memory_allocated() / 1e9 if CUDA else 0.0


def outside_the_passes(scale: Scale) -> Iterator[Row]:
    """A whole step against the method's `forward_backward` alone, on a batch that is there."""
    for subject in scale.large:
        for name in ("vanilla", "advprop"):
            with trainer_of(subject, name) as (trainer, batch):
                moved = batch.to(DEVICE, memory_format=LAYOUTS[subject.layout])

                def passes(trainer: Trainer = trainer, moved: Batch = moved) -> None:
                    trainer.model.zero_grad(set_to_none=True)
                    trainer.method.forward_backward(trainer.model, moved)

                def step(trainer: Trainer = trainer, batch: Batch = batch) -> None:
                    trainer.train_step(batch)

                actions = {"a whole step": step, "its passes": passes}
                times = interleaved(actions, repeats=scale.repeats, clock=when_done)
                case = f"{subject}, {name}"
                yield times.ratio(*actions, case=case, target=1.05)


def compilation(scale: Scale) -> Iterator[Row]:
    """Programs, seconds until all are there, and what a step gains."""
    subject = scale.large[0]
    with trainer_of(subject, "advprop") as (trainer, batch):
        eager, _ = measured(trainer, batch, scale.repeats)
        torch._dynamo.utils.counters.clear()
        compile_model(trainer.plain_model)
        began = when_done()
        for _ in range(2):
            trainer.train_step(batch)
        taken, case = when_done() - began, f"{subject}, advprop, torch.compile"
        programs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        yield Row(what="programs", value=programs, unit="", case=case)
        yield Row(what="the first two steps", value=taken, unit="s", case=case)
        compiled, _ = measured(trainer, batch, scale.repeats)
        base = sorted(eager)[len(eager) // 2]
        ratios = [second / base for second in compiled]
        yield row_of("a step", ratios, against="without", case=case, target=1.0)


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
    workers = (torch.get_num_threads() if CUDA else 0) and len(_cpus())
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


def _cpus() -> range:
    return range(torch.multiprocessing.cpu_count())


def store(scale: Scale) -> Iterator[Row]:
    """What `carried` reads and writes for a batch, against a vanilla step."""
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
                "read": lambda: kept.decoded(kept.read(indices, 1)[0].to(DEVICE)),
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
        command += ["--nproc_per_node", "2", "-m", "advprop", "train", "digits", "--out", folder]
        shutil.rmtree(folder)
        done = subprocess.run(
            [*command, "--set", "training.num_epochs=1"],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        Path(folder).mkdir(exist_ok=True)
    expected = "GPUs" if CUDA and torch.cuda.device_count() < 2 else ""
    is_right = expected in done.stderr and (done.returncode == 0) == (not expected)
    case = "torchrun --nproc_per_node 2, digits"
    what = "refused with a message" if expected else "trained"
    yield Row(what=what, case=case, value=float(not is_right), unit="wrong", target=0)


BLOCKS: dict[str, tuple[Callable[[Scale], Iterator[Row]], float]] = {
    "launches and waits": (launches_and_waits, 60),
    "attack gradients": (attack_gradients, 60),
    "cost of steps": (cost_of_steps, 150),
    "outside the passes": (outside_the_passes, 45),
    "compilation": (compilation, 90),
    "resume": (resumed, 45),
    "loader": (loader_and_step, 45),
    "store": (store, 30),
    "two processes": (two_processes, 60),
}
"""In order, with the seconds that each may take: a row that has begun is finished."""


def measure(quick: bool) -> Iterator[Row]:
    if CUDA:
        yield from all_blocks(TINY if quick else WHOLE)
    else:
        yield Row(what="everything", note="not run here: no GPU")


def all_blocks(scale: Scale) -> Iterator[Row]:
    """Every block's rows; one that fails says so, and the next one begins."""
    for name, (block, seconds) in BLOCKS.items():
        began = time.monotonic()
        try:
            for row in block(scale):
                yield replace(row, case=f"{name}: {row.case}")
                if time.monotonic() - began > seconds:
                    yield Row(what=name, note=f"stopped after its {seconds:g} s")
                    break
        except (RuntimeError, ValueError, OSError, subprocess.TimeoutExpired) as error:
            yield Row(what=name, note=f"failed: {str(error)[:200]}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what only a GPU shows.")
    parser.add_argument("--quick", action="store_true", help="tiny nets, on any machine")
    parser.add_argument("--out", type=Path, help="a file for a line of JSON a row")
    options = parser.parse_args()
    rows = []
    with (options.out or Path("/dev/null")).open("w") as lines:
        print(json.dumps({"machine": machine(), "versions": versions()}), file=lines, flush=True)
        for row in told(all_blocks(TINY) if options.quick else measure(quick=False)):
            print(json.dumps(plain(row)), file=lines, flush=True)
            rows.append(row)
    print_table({"gpu": rows})
    sys.exit(any(row.note.startswith("failed:") for row in rows))


if __name__ == "__main__":
    main()
