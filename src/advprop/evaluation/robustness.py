"""Accuracy under attack: with restarts, over a range of epsilons, and under transfer attacks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from advprop.attacks.attack import Attack
from advprop.attacks.pgd import PGD
from advprop.attacks.random_search import margins
from advprop.attacks.threat_models import Linf, ThreatModel
from advprop.evaluation.accuracy import Scores, evaluation_streams, image_indices, joined, mean
from advprop.evaluation.labels import attack_labels
from advprop.results.intervals import bootstrap_interval
from advprop.shapes import Batch, Images, LogitsFn, correct_predictions


def attack_with_restarts(
    attack: Attack,
    batch: Batch,
    *,
    attacked_logits_fn: LogitsFn,
    logits_fn: LogitsFn,
    restarts: int = 1,
) -> tuple[Images, Tensor]:
    """Return adversarial images, and whether `logits_fn` is correct on each after all restarts.

    The first restart attacks all images; each further one attacks those that are still classified
    correctly, from another random start. The version of an image with the smallest margin is kept.
    Random numbers depend only on (image, restart), not on the batch or on other images.
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
        streams = evaluation_streams(indices[chosen.cpu()], restart)
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
    """Collects over batches which images were correct and how attacked ones were perturbed."""

    threat_model: ThreatModel | None
    correct: list[Tensor] = field(default_factory=list)
    perturbation: float = 0.0
    length: float = 0.0
    largest: float = 0.0
    num_attacked: int = 0

    def add(self, correct: Tensor, clean: Images, adversarial: Images) -> None:
        """Add a batch; `clean` and `adversarial` hold only its images that were attacked."""
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
        """Return the share of correct images; raises ValueError if there were no images."""
        return mean(self.flags)

    @property
    def flags(self) -> Tensor:
        """Return [num_images]: whether each image was correct, or its share of right labels."""
        return joined(self.correct)

    def numbers(self) -> dict[str, Any]:
        """Return `perturbation` (mean absolute change), `largest`, `reached` and `num_attacked`.

        `largest` is the longest perturbation in the threat model's norm (L2 if it is unknown),
        `reached` the mean length as a fraction of epsilon; both are omitted if no image was
        attacked, `reached` also if epsilon is 0 or unknown.
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
    """Return `adversarial_accuracy`: the share of images correct when clean and in every restart.

    Images that are misclassified without a perturbation are not attacked and do not count in
    `perturbation`, since an attacker may leave an image unperturbed. An image with several labels
    counts as the share of right labels in the version with the largest loss, clean or attacked.
    """
    tally, scores = Tally(threat_model_of(attack)), Scores()
    functions = {"attacked_logits_fn": attacked_logits_fn, "logits_fn": logits_fn}
    for batch in batches:
        if batch.labels.ndim > 1:
            adversarial, logits = attack_labels(attack, batch, **functions, restarts=restarts)
            scores.add(logits, batch.labels)
            tally.add(scores.values[-1], batch.images, adversarial)
            continue
        correct = _correct(logits_fn, batch)
        right = part_of(batch, correct)
        adversarial, survived = attack_with_restarts(attack, right, **functions, restarts=restarts)
        correct[correct.clone()] = survived
        tally.add(correct, right.images, adversarial)
    return {
        "adversarial_accuracy": tally.accuracy,
        "ci95": bootstrap_interval(tally.flags),
        **scores.means("adversarial"),
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
    """Return for each attack the results of `evaluate_adversarial`, the accuracy as `accuracy`."""
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
    """Return `transfer_accuracy` on images attacked through a source model, and `source_accuracy`.

    The latter is that of the source itself. All images are attacked, including misclassified ones;
    an image is correct for a model that classifies its clean and its adversarial version correctly.
    """
    tally, source = Tally(threat_model_of(attack)), []
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
        source.append(_correct(source_logits_fn, batch) & survived)
    return {
        "transfer_accuracy": tally.accuracy,
        "ci95": bootstrap_interval(tally.flags),
        "source_accuracy": mean(joined(source)),
        **tally.numbers(),
        **describe(attack),
        "restarts": restarts,
        "num_images": len(tally.flags),
    }


def threat_model_of(attack: Attack) -> ThreatModel | None:
    """Return the attack's threat model if it is PGD, else None."""
    return attack.threat_model if isinstance(attack, PGD) else None


def describe(attack: Attack) -> dict[str, Any]:
    """Return the settings of PGD under their names in results, or {} for another attack."""
    if not isinstance(attack, PGD):
        return {}
    return {
        "threat_model": type(attack.threat_model).__name__,
        "epsilon": attack.threat_model.epsilon,
        "num_steps": attack.num_steps,
        "step_size": attack.step_size,
    }


def part_of(batch: Batch, chosen: Tensor) -> Batch:
    """Return the images of `batch` for which the booleans `chosen` are true."""
    indices = image_indices(batch)[chosen.cpu()]
    return Batch(images=batch.images[chosen], labels=batch.labels[chosen], indices=indices)


@torch.no_grad()
def _correct(logits_fn: LogitsFn, batch: Batch) -> Tensor:
    return correct_predictions(logits_fn(batch.images), batch.labels)
