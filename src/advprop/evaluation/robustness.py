"""Accuracy under attack: with restarts, over a range of epsilons, and from one model to another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from advprop.attacks.pgd import PGD, Attack
from advprop.attacks.threat_models import Linf, ThreatModel
from advprop.evaluation.accuracy import joined, mean
from advprop.randomness import ImageStreams
from advprop.results.intervals import bootstrap_interval
from advprop.shapes import Batch, Images, LogitsFn, correct_predictions, margins

# evaluation meets the same random starts in every run
EVALUATION_SEED = 0


def image_indices(batch: Batch) -> Tensor:
    """The images' positions in their data set, or in the batch where they are not known."""
    return torch.arange(len(batch)) if batch.indices is None else batch.indices


def attack_with_restarts(
    attack: Attack,
    batch: Batch,
    *,
    attacked_logits_fn: LogitsFn,
    logits_fn: LogitsFn,
    restarts: int = 1,
) -> tuple[Images, Tensor]:
    """Adversarial images, and whether `logits_fn` classifies each correctly after all restarts.

    Each restart attacks the images only that are still classified correctly, from another random
    start; of each the version with the smallest margin is kept. Random numbers follow (image,
    restart), so neither the batch nor the other images' fate changes them.
    """
    adversarial = batch.images.clone()
    correct = torch.ones(len(batch), dtype=torch.bool, device=batch.images.device)
    least = torch.full((len(batch),), torch.inf, device=batch.images.device)
    indices = image_indices(batch)
    for restart in range(restarts):
        chosen = correct.nonzero().flatten()
        if len(chosen) == 0:
            break
        images, labels = batch.images[chosen], batch.labels[chosen]
        streams = ImageStreams.for_batch(
            EVALUATION_SEED, 0, indices[chosen.cpu()], [restart] * len(chosen)
        )
        attacked = attack(attacked_logits_fn, images, labels, generator=streams)
        with torch.no_grad():
            logits = logits_fn(attacked).float()
        margin = margins(logits, labels)
        better = margin < least[chosen]
        adversarial[chosen[better]] = attacked[better]
        least[chosen[better]] = margin[better]
        correct[chosen] = correct_predictions(logits, labels)
    return adversarial, correct


@dataclass(eq=False)
class Tally:
    """Adds up, over batches, which images were correct, and what was done to those attacked."""

    threat_model: ThreatModel | None
    correct: list[Tensor] = field(default_factory=list)
    perturbation: float = 0.0
    length: float = 0.0
    largest: float = 0.0
    num_attacked: int = 0

    def add(self, correct: Tensor, clean: Images, adversarial: Images) -> None:
        """Count a batch; `clean` and `adversarial` are those of its images that were attacked."""
        self.correct.append(correct.cpu())
        if len(clean) == 0:
            return
        change = (adversarial - clean).flatten(1).float()
        self.num_attacked += len(clean)
        self.perturbation += float(change.abs().mean(dim=1).sum())
        order = torch.inf if isinstance(self.threat_model, Linf) else 2
        length = torch.linalg.vector_norm(change, ord=order, dim=1)
        self.length += float(length.sum())
        self.largest = max(self.largest, float(length.max()))

    @property
    def accuracy(self) -> float:
        """The share of correct ones; ValueError where there were no images."""
        return mean(self.flags)

    @property
    def flags(self) -> Tensor:
        """A boolean an image."""
        return joined(self.correct)

    def numbers(self) -> dict[str, Any]:
        """`perturbation` (mean change of a value), `largest`, `reached` and `num_attacked`.

        `largest` is the longest perturbation by the threat model's own measure, `reached` their
        mean length in epsilons; both are left out where no image was attacked.
        """
        found: dict[str, Any] = {"perturbation": 0.0, "num_attacked": self.num_attacked}
        if self.num_attacked:
            found["perturbation"] = self.perturbation / self.num_attacked
            found["largest"] = self.largest
            if self.threat_model is not None and self.threat_model.epsilon > 0:
                found["reached"] = self.length / self.num_attacked / self.threat_model.epsilon
        return found


def evaluate_adversarial(
    logits_fn: LogitsFn,
    batches: Iterable[Batch],
    *,
    attack: Attack,
    attacked_logits_fn: LogitsFn,
    restarts: int = 1,
) -> dict[str, Any]:
    """`adversarial_accuracy`: the share of images that are correct, and stay so in every restart.

    The unperturbed image is one that an attacker may show, so those wrong from the start are not
    attacked, and do not count in `perturbation`.
    """
    tally = Tally(threat_model_of(attack))
    for batch in batches:
        correct = _correct(logits_fn, batch)
        right = part_of(batch, correct)
        adversarial, survived = attack_with_restarts(
            attack,
            right,
            attacked_logits_fn=attacked_logits_fn,
            logits_fn=logits_fn,
            restarts=restarts,
        )
        correct[correct.clone()] = survived
        tally.add(correct, right.images, adversarial)
    return {
        "adversarial_accuracy": tally.accuracy,
        "ci95": bootstrap_interval(tally.flags),
        **tally.numbers(),
        **describe(attack),
        "restarts": restarts,
        "num_images": len(tally.flags),
    }


def evaluate_curve(
    logits_fn: LogitsFn,
    batches: Iterable[Batch],
    *,
    attacks: Sequence[PGD],
    attacked_logits_fn: LogitsFn,
    restarts: int = 1,
) -> list[dict[str, Any]]:
    """A point for each attack: what it is, `accuracy`, and the perturbations that it made."""
    points = []
    for attack in attacks:
        found = evaluate_adversarial(
            logits_fn,
            batches,
            attack=attack,
            attacked_logits_fn=attacked_logits_fn,
            restarts=restarts if attack.threat_model.epsilon > 0 else 1,
        )
        points.append({"accuracy": found.pop("adversarial_accuracy"), **found})
    return points


def evaluate_transfer(
    logits_fn: LogitsFn,
    batches: Iterable[Batch],
    *,
    attack: Attack,
    source_logits_fn: LogitsFn,
    restarts: int = 1,
) -> dict[str, Any]:
    """`transfer_accuracy` on images made against another model, `source_accuracy` that model's own.

    All images are attacked, those too that a model gets wrong unperturbed; correct are images that
    a model gets right both as they are and attacked.
    """
    tally, source = Tally(threat_model_of(attack)), Tally(None)
    for batch in batches:
        adversarial, survived = attack_with_restarts(
            attack,
            batch,
            attacked_logits_fn=source_logits_fn,
            logits_fn=source_logits_fn,
            restarts=restarts,
        )
        shown = Batch(images=adversarial, labels=batch.labels)
        correct = _correct(logits_fn, batch) & _correct(logits_fn, shown)
        tally.add(correct, batch.images, adversarial)
        source.add(_correct(source_logits_fn, batch) & survived, batch.images, adversarial)
    return {
        "transfer_accuracy": tally.accuracy,
        "ci95": bootstrap_interval(tally.flags),
        "source_accuracy": source.accuracy,
        **tally.numbers(),
        **describe(attack),
        "restarts": restarts,
        "num_images": len(tally.flags),
    }


def threat_model_of(attack: Attack) -> ThreatModel | None:
    """What the attack may do, where it is PGD."""
    return attack.threat_model if isinstance(attack, PGD) else None


def describe(attack: Attack) -> dict[str, Any]:
    """PGD's own numbers, under the names that results have for them."""
    if not isinstance(attack, PGD):
        return {}
    return {
        "threat_model": type(attack.threat_model).__name__,
        "epsilon": attack.threat_model.epsilon,
        "num_steps": attack.num_steps,
        "step_size": attack.step_size,
    }


def part_of(batch: Batch, chosen: Tensor) -> Batch:
    """The images of `batch` that the booleans `chosen` name."""
    indices = image_indices(batch)[chosen.cpu()]
    return Batch(images=batch.images[chosen], labels=batch.labels[chosen], indices=indices)


@torch.no_grad()
def _correct(logits_fn: LogitsFn, batch: Batch) -> Tensor:
    return correct_predictions(logits_fn(batch.images), batch.labels)
