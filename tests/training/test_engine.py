"""What the engine's settings do: parts of a batch, frozen layers, schedules, compiling."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from timm.optim import list_optimizers
from tiny import same_tensors, tiny_images, tiny_net
from torch import Tensor, nn

from advprop.config import RunConfig
from advprop.config.overrides import apply_overrides
from advprop.methods.vanilla import Vanilla
from advprop.models.standardize import standardized
from advprop.recipes.builtin import digits
from advprop.runs import train
from advprop.runs.folder import load_run
from advprop.shapes import Batch
from advprop.tasks.task import Classification
from advprop.training.engine import build_accelerator, compile_model, prepare_model
from advprop.training.learner import Learner
from advprop.training.optim import build_optimizer, build_schedule, freeze_layers
from advprop.training.position import Position
from advprop.training.settings import TrainingSettings

TRANSFORMER = [
    "model.name=vit_tiny_patch16_224",
    "model.mean=[0.3]",
    "model.std=[0.4]",
    'model.options={"patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2}',
]

BATCH_NORM = [
    "model.name=resnet18",
    "model.mean=[0.3]",
    "model.std=[0.4]",
    'model.options={"stem_width": 8, "channels": [8, 8, 16, 16]}',
]


def quick(method: str, *settings: str) -> RunConfig:
    base = ["training.num_epochs=1", "data.num_train=40", "training.batch_size=20"]
    return apply_overrides(digits().with_method(method), [*base, *settings])


def settings(**changes: object) -> TrainingSettings:
    return TrainingSettings(**{"num_epochs": 10, "batch_size": 4, "learning_rate": 1.0, **changes})


@pytest.mark.parametrize("method", ["vanilla", "advprop"])
def test_a_batch_in_parts_gives_the_same_step(method: str, tmp_path: Path) -> None:
    """Exact but for rounding where no layer takes statistics over the batch."""
    for parts in (1, 4):
        config = quick(method, *TRANSFORMER, f"training.gradient_accumulation={parts}")
        train(config, tmp_path / str(parts), quiet=True)
    whole, divided = (load_run(tmp_path / parts).model.state_dict() for parts in ("1", "4"))
    for name, tensor in whole.items():
        torch.testing.assert_close(divided[name], tensor, rtol=1e-4, atol=1e-5)
    logs = [json.loads((tmp_path / p / "metrics.jsonl").read_text()) for p in ("1", "4")]
    for kind, numbers in logs[0]["train"].items():
        assert logs[1]["train"][kind]["loss"] == pytest.approx(numbers["loss"], rel=1e-4)


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("advprop", TRANSFORMER),
        ("vanilla", BATCH_NORM),
        ("mixed", BATCH_NORM),
        ("advprop", BATCH_NORM),
        ("advprop", [*BATCH_NORM, "model.separate=affine", "method.form=joint"]),
        ("vanilla", [*BATCH_NORM, "training.gradient_accumulation=2", "training.ema_decay=0.9"]),
    ],
)
def test_activation_checkpointing_changes_no_bit(
    method: str, changes: list[str], tmp_path: Path
) -> None:
    for on in ("false", "true"):
        config = quick(method, *changes, f"training.activation_checkpointing={on}")
        train(config, tmp_path / on, quiet=True)
    for weights in ("last", "ema") if "training.ema_decay=0.9" in changes else ("last",):
        plain, recomputed = (
            load_run(tmp_path / on, weights=weights).model.state_dict() for on in ("false", "true")
        )
        assert same_tensors(plain, recomputed)


@pytest.mark.full
def test_a_compiled_checkpointed_model_counts_a_batch_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, **_: whole(self, backend="aot_eager"))
    torch._dynamo.reset()
    settings = [*BATCH_NORM, "training.compile=true", "training.activation_checkpointing=true"]
    train(quick("vanilla", *settings), tmp_path, quiet=True)
    torch._dynamo.reset()
    buffers = load_run(tmp_path).model.named_buffers()
    counts = [int(buffer) for name, buffer in buffers if name.endswith("num_batches_tracked")]
    assert counts
    assert set(counts) == {2}


def test_activation_checkpointing_is_refused_where_a_model_cannot(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="SmallResNet cannot do it; leave it out"):
        train(quick("vanilla", "training.activation_checkpointing=true"), tmp_path, quiet=True)


def test_frozen_layers_stay_and_the_rest_moves() -> None:
    model = timm.create_model("resnet18", num_classes=3)
    freeze_layers(standardized(model), 1)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"conv1.weight", "bn1.weight", "bn1.bias"}
    with pytest.raises(ValueError, match="frozen_layers 99: the model has"):
        freeze_layers(model, 99)
    with pytest.raises(ValueError, match="Linear does not name its groups of layers"):
        freeze_layers(nn.Linear(2, 2), 1)


def test_layer_decay_finds_the_layers_of_a_standardised_model() -> None:
    model = standardized(timm.create_model("vit_tiny_patch16_224", depth=4, num_classes=3))
    optimizer = build_optimizer(model, settings(optimizer="adamw", layer_decay=0.5))
    scales = sorted({group["lr_scale"] for group in optimizer.param_groups})
    assert scales == [0.5**depth for depth in range(5, -1, -1)]
    build_schedule(optimizer, settings(), 10).step_update(0)
    assert max(group["lr"] for group in optimizer.param_groups) == 1.0
    assert min(group["lr"] for group in optimizer.param_groups) == 0.5**5


def test_rmsprop_as_tensorflow_has_it() -> None:
    model = standardized(timm.create_model("resnet18", num_classes=3))
    options = {"alpha": 0.9, "eps": 1e-3}
    optimizer = build_optimizer(model, settings(optimizer="rmsproptf", optimizer_options=options))
    assert type(optimizer).__name__ == "RMSpropTF"
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0, 1e-4]
    assert all((g["alpha"], g["eps"]) == (0.9, 1e-3) for g in optimizer.param_groups)
    with pytest.raises(ValueError, match="cannot be built"):
        build_optimizer(model, settings(optimizer_options={"colour": 1}))


def rates(**changes: object) -> list[float]:
    """The rate in each of 10 epochs of 10 steps, at the first step."""
    chosen = settings(**changes)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=chosen.learning_rate)
    schedule = build_schedule(optimizer, chosen, 10)
    found = []
    for step in range(0, 100, 10):
        schedule.step_update(step)
        found.append(optimizer.param_groups[0]["lr"])
    return found


def test_a_staircase_falls_every_few_epochs_counted_from_the_start() -> None:
    steps = rates(schedule="staircase", decay_rate=0.5, decay_epochs=2.5)
    assert steps == [1.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125, 0.125]
    warmed = rates(schedule="staircase", decay_rate=0.5, decay_epochs=2.5, warmup_epochs=2.0)
    assert warmed[2:] == steps[2:]
    assert warmed[0] < warmed[1] < 1.0


def test_milestones_are_epochs() -> None:
    steps = rates(schedule="milestones", milestones=(3.0, 8.0), decay_rate=0.1)
    assert steps == pytest.approx([1.0] * 3 + [0.1] * 5 + [0.01] * 2)
    chosen = settings(schedule="milestones", milestones=(3.0,))
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = build_schedule(optimizer, chosen, 10)
    schedule.step_update(29)
    assert optimizer.param_groups[0]["lr"] == 1.0  # the last step of the third epoch


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gradient_accumulation": 3}, "batch_size 4 cannot be divided"),
        ({"milestones": (3.0,)}, 'schedule "cosine" with milestones'),
        ({"schedule": "milestones"}, "with milestones"),
        ({"schedule": "milestones", "milestones": (5.0, 3.0)}, "rising epochs"),
        ({"decay_rate": 0.0}, "decay_rate 0.0"),
        ({"layer_decay": 1.5}, "layer_decay 1.5"),
        ({"keep_checkpoints": 0}, "keep_checkpoints 0"),
        ({"checkpoint_every_minutes": 0.0}, "checkpoint_every_minutes 0.0"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings(**changes)


def test_a_compiled_model_keeps_its_keys_and_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backend that compiles nothing: what is tested is that every pass goes through it."""
    programs = []

    def counting(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        programs.append(graph)
        return graph.forward

    whole = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, **_: whole(self, backend=counting))
    config = quick("advprop", "model.options.width=8")
    train(config, tmp_path / "eager", quiet=True)
    torch._dynamo.reset()
    compiled = apply_overrides(config, ["training.compile=true", "training.num_epochs=2"])
    train(compiled, tmp_path / "compiled", quiet=True)
    torch._dynamo.reset()
    # clean and adversarial training passes, the attack through the auxiliary branch, validation
    assert len(programs) >= 4
    states = [load_run(tmp_path / run).model.state_dict() for run in ("eager", "compiled")]
    assert states[0].keys() == states[1].keys()


def test_compiling_raises_the_number_of_programs() -> None:
    limit = torch._dynamo.config.recompile_limit
    try:
        compile_model(nn.Linear(2, 2))
        assert torch._dynamo.config.recompile_limit >= 64
    finally:
        torch._dynamo.config.recompile_limit = limit


def test_a_prepared_model_has_the_layout_of_images() -> None:
    model = prepare_model(nn.Conv2d(8, 8, 3), settings(), torch.device("cpu"))
    assert model.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is a GPU for it")
def test_half_precision_without_a_gpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mixed_precision fp16 needs a GPU"):
        train(quick("vanilla", "training.mixed_precision=fp16"), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_run_in_bfloat16_attacks_as_far_as_one_in_float32(tmp_path: Path) -> None:
    perturbations = {}
    for precision in ("no", "bf16"):
        config = quick("advprop", f"training.mixed_precision={precision}")
        train(config, tmp_path / precision, quiet=True)
        entry = json.loads((tmp_path / precision / "metrics.jsonl").read_text())
        perturbations[precision] = entry["perturbation"]
    assert perturbations["bf16"] == pytest.approx(perturbations["no"], rel=0.1)


def test_an_optimiser_that_needs_more_than_gradients_is_refused():
    with pytest.raises(ValueError, match=r'"adahessian" .*create_graph.*take another, such as sgd'):
        build_optimizer(tiny_net(), settings(optimizer="adahessian"))


@pytest.mark.full
@pytest.mark.parametrize("name", [*list_optimizers(), "lookahead_adamw"])
@pytest.mark.filterwarnings("ignore")
def test_every_optimiser_of_timm_trains_or_is_refused_in_words(name):
    model, state = tiny_net(), torch.get_rng_state()
    if name == "adahessian" or name.startswith(("bnb", "fused")):  # the others need CUDA
        with pytest.raises(ValueError, match=r"take another|cannot be built"):
            build_optimizer(model, settings(optimizer=name))
        return
    optimizer = build_optimizer(model, settings(optimizer=name))
    assert torch.equal(torch.get_rng_state(), state)
    for _ in range(2):
        optimizer.zero_grad()
        model(tiny_images()).square().sum().backward()
        optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())


def test_a_run_of_one_step_has_no_warning_and_the_whole_rate(caplog):
    model = tiny_net()
    optimizer = build_optimizer(model, settings())
    schedule = build_schedule(optimizer, settings(num_epochs=1), 1)
    schedule.step_update(0)
    assert optimizer.param_groups[0]["lr"] == 1.0
    assert caplog.records == []


def test_a_batch_too_small_for_its_statistics_names_the_settings():
    def refuse(*_: object) -> Tensor:
        raise ValueError("mine")

    def gradients(size: int) -> None:
        net = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten())
        accelerator = build_accelerator(settings())
        learner = Learner(net, Vanilla(), Classification(refuse), settings(), 0, accelerator)
        batch = Batch(images=torch.rand(size, 3, 1, 1), labels=torch.arange(size))
        learner.gradients(batch, Position(), progress=0.0)

    settings_named = r"from 1 images a pass .*raise training.batch_size, or lower.*accumulation"
    with pytest.raises(ValueError, match=settings_named):
        gradients(1)
    with pytest.raises(ValueError, match=r"^mine$"):
        gradients(2)
