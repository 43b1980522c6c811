"""transformers' own Trainer with a method's loss, and its own models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from digits_to_learn import (
    ADVPROP,
    ATTACK,
    METHODS,
    REFUSED,
    SEEN,
    Changing,
    digits,
    gradients_by_hand,
    gradients_of,
    state,
)
from PIL import Image
from tiny import same_tensors
from torch import Tensor, nn
from transformers import (
    AutoModelForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    TrainerCallback,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    pipeline,
)

from advprop.attacks.pgd import PGD
from advprop.attacks.threat_models import Linf
from advprop.auxiliary.surgery import add_auxiliary_norms, remove_auxiliary_norms
from advprop.bridges.transformers import ImageClassifier, MethodTrainer
from advprop.methods.advprop import AdvProp
from advprop.methods.base import Method

PROCESSOR = ViTImageProcessor(
    size={"height": 8, "width": 8}, image_mean=[0.3, 0.3, 0.3], image_std=[0.4, 0.4, 0.4]
)
RANDOM = AdvProp(attack=PGD(threat_model=Linf(0.1), num_steps=1, step_size=0.1))
pytestmark = [
    # what transformers says of pinned memory where there is no GPU
    pytest.mark.filterwarnings("ignore:.*pin_memory:UserWarning"),
]


def resnet() -> nn.Module:
    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=10
    )
    torch.manual_seed(0)
    return ResNetForImageClassification(config)


def vit() -> nn.Module:
    config = ViTConfig(
        image_size=8,
        patch_size=4,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=10,
    )
    torch.manual_seed(0)
    return ViTForImageClassification(config)


def classifier(build: Any = resnet) -> nn.Module:
    return add_auxiliary_norms(ImageClassifier(build(), PROCESSOR))


def colours(count: int) -> tuple[Tensor, Tensor]:
    images, labels = digits(count)
    return images.repeat(1, 3, 1, 1), labels


def examples(count: int) -> list[dict[str, Tensor]]:
    return [
        {"pixel_values": image, "labels": label}
        for image, label in zip(*colours(count), strict=True)
    ]


class Noting(TrainerCallback):
    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **known: Any) -> None:
        self.steps.append(gradients_of(known["model"]))


def trainer(
    folder: Path, model: nn.Module, method: Method = ADVPROP, *, count: int = 64, **options: Any
) -> tuple[MethodTrainer, Noting]:
    settings: dict[str, Any] = {
        "num_train_epochs": 2,
        "per_device_train_batch_size": 32,
        "learning_rate": 0.01,
        "max_grad_norm": 0.0,
        "train_sampling_strategy": "sequential",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
    }
    noting = Noting()
    made = MethodTrainer(
        model=model,
        args=TrainingArguments(str(folder), **{**settings, **options}),
        method=method,
        train_dataset=examples(count),
        eval_dataset=examples(40),
        callbacks=[noting],
        compute_metrics=lambda found: {
            "accuracy": float((found.predictions.argmax(axis=1) == found.label_ids).mean())
        },
    )
    return made, noting


@pytest.mark.parametrize("build", [resnet, vit])
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_gradients_are_those_of_forward_backward(
    method: Method, build: Any, tmp_path: Path
) -> None:
    model = classifier(build)
    expected = gradients_by_hand(method, model, colours(32))
    training, noting = trainer(tmp_path, model, method, max_steps=1)
    training.train()
    assert same_tensors(noting.steps[0], expected)


def test_two_epochs_saved_resumed_removed_and_exported(tmp_path: Path) -> None:
    whole, resumed = classifier(), classifier()
    options = {"save_strategy": "epoch", "eval_strategy": "epoch", "count": 512}
    # random starts and shuffling too go on from where they were
    options["train_sampling_strategy"] = "random"
    first, _ = trainer(tmp_path, whole, RANDOM, **options)
    first.train()
    assert first.state.log_history[-2]["eval_accuracy"] > 0.3
    again, noting = trainer(tmp_path, resumed, RANDOM, **options)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-16"))
    assert len(noting.steps) == 16
    assert same_tensors(state(resumed), state(whole))

    images, _ = colours(8)
    with torch.no_grad():
        expected = resumed.eval()(images)
    plain = remove_auxiliary_norms(resumed).model
    assert plain.state_dict().keys() == resnet().state_dict().keys()
    plain.save_pretrained(tmp_path / "plain")
    PROCESSOR.save_pretrained(tmp_path / "plain")
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path / "plain").eval()
    with torch.no_grad():
        found = loaded((images - 0.3) / 0.4).logits
    torch.testing.assert_close(found, expected)
    pictures = [
        Image.fromarray((255 * image.permute(1, 2, 0)).round().byte().numpy()) for image in images
    ]
    answers = pipeline("image-classification", str(tmp_path / "plain"))(pictures, top_k=1)
    best = [loaded.config.id2label[int(logits.argmax())] for logits in expected]
    assert [answer[0]["label"] for answer in answers] == best


def test_the_processor_gives_what_the_classifier_takes() -> None:
    picture = Image.fromarray((255 * colours(1)[0][0].permute(1, 2, 0)).round().byte().numpy())
    given = {
        normalised: PROCESSOR(picture, do_normalize=normalised, return_tensors="pt").pixel_values
        for normalised in (False, True)
    }
    assert 0 <= given[False].min() < given[False].max() <= 1
    plain = resnet().eval()
    with torch.no_grad():
        found = ImageClassifier(plain, PROCESSOR)(given[False])
        torch.testing.assert_close(found, plain(given[True]).logits)


def test_accumulation_gives_the_mean_of_its_parts(tmp_path: Path) -> None:
    model = classifier()
    images, labels = colours(64)
    parts = zip(images.split(32), labels.split(32), strict=True)
    expected = gradients_by_hand(ADVPROP, model, *parts)
    training, noting = trainer(tmp_path, model, gradient_accumulation_steps=2, num_train_epochs=1)
    training.train()
    (found,) = noting.steps
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name] / 2)


def test_methods_learn_where_training_is(tmp_path: Path) -> None:
    SEEN.clear()
    trainer(tmp_path, classifier(), Changing(attack=ATTACK))[0].train()
    assert SEEN == [(0.0, 0, 0), (0.25, 1, 0), (0.5, 2, 1), (0.75, 3, 1)]


def test_label_smoothing_applies(tmp_path: Path) -> None:
    losses = []
    for smoothing in (0.0, 0.5):
        training, _ = trainer(
            tmp_path, classifier(), METHODS["vanilla"], label_smoothing_factor=smoothing
        )
        losses.append(training.evaluate()["eval_loss"])
    assert losses[0] != losses[1]


def test_a_method_that_needs_its_backward_passes_refuses(tmp_path: Path) -> None:
    training, _ = trainer(tmp_path, classifier(), REFUSED)
    with pytest.raises(ValueError, match=r"Fast uses .* call method\.forward_backward"):
        training.train()
