"""AdvProp (Xie et al., CVPR 2020, arXiv 1911.09665) with torch alone; images are in [0, 1]."""

import copy

import torch
from torch import nn
from torch.nn import functional as F


class TwoNorms(nn.Module):
    """A BatchNorm layer for clean images, and a copy of it for adversarial ones."""

    def __init__(self, norm):
        super().__init__()
        self.clean, self.adversarial, self.active = norm, copy.deepcopy(norm), "clean"

    def forward(self, features):
        return self.get_submodule(self.active)(features)


def use(model, branch):
    """Choose which layers images go through from now on: those of "clean" or "adversarial"."""
    for layer in model.modules():
        if isinstance(layer, TwoNorms):
            layer.active = branch


def add_branches(model):
    """Replace every BatchNorm layer of `model` by two. Build the optimiser after this call."""
    for name, part in model.named_children():
        new = TwoNorms(part) if isinstance(part, nn.BatchNorm2d) else add_branches(part)
        setattr(model, name, new)
    return model


def remove_branches(model):
    """Leave the plain model: its architecture, and the layers that clean images went through."""
    for name, part in model.named_children():
        setattr(model, name, part.clean if isinstance(part, TwoNorms) else remove_branches(part))
    return model


def attack(model, images, labels, epsilon=0.1, step_size=0.05, num_steps=3, generator=None):
    """Projected gradient descent from a random start towards another class, drawn at random."""

    def project(adversarial):
        return (images + (adversarial - images).clamp(-epsilon, epsilon)).clamp(0, 1)

    start = torch.empty_like(images).uniform_(generator=generator)
    adversarial, targets = project(images + (2 * start - 1) * epsilon), None
    for _ in range(num_steps):
        logits = model(adversarial.requires_grad_())
        if targets is None:
            chance = torch.empty_like(logits).uniform_(generator=generator)
            targets = chance.scatter(1, labels[:, None], -1).argmax(dim=1)
        loss = F.cross_entropy(logits, targets, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, adversarial)
        adversarial = project(adversarial.detach() - step_size * gradient.sign())
    return adversarial.detach()


def advprop_step(model, images, labels, **settings):
    """Leave the gradients of both losses in `.grad`: all weights but the norms' learn from both."""
    use(model, "adversarial")
    model.eval()  # the attack meets running statistics, and changes none
    adversarial = attack(model, images, labels, **settings)
    model.train()
    for branch, kind in (("clean", images), ("adversarial", adversarial)):
        use(model, branch)
        F.cross_entropy(model(kind), labels).backward()
    use(model, "clean")


if __name__ == "__main__":
    from sklearn.datasets import load_digits

    torch.manual_seed(0)
    found = load_digits()
    images, labels = torch.tensor(found.images[:, None] / 16).float(), torch.tensor(found.target)
    stem, head = (nn.Conv2d(1, 32, 3), nn.BatchNorm2d(32)), (nn.Flatten(), nn.Linear(1152, 10))
    model = add_branches(nn.Sequential(*stem, nn.ReLU(), *head))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for batch in (batch for _ in range(10) for batch in torch.randperm(1000).split(50)):
        optimizer.zero_grad()
        advprop_step(model, images[batch], labels[batch])
        optimizer.step()
    logits = remove_branches(model).eval()(images[1000:])
    print(f"{100 * (logits.argmax(1) == labels[1000:]).float().mean():.1f} % of 797 digits")
