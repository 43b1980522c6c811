"""What cannot be right is refused in every mode, and by copies too."""

import copy
import pickle

import pytest
import timm
import torch
from branch_nets import branched, small_net, some_images
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from advprop.auxiliary.branches import use_branch
from advprop.auxiliary.surgery import add_auxiliary_norms
from advprop.auxiliary.token import add_auxiliary_tokens


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_reentrant_checkpointing_is_refused_in_both_modes(training: bool) -> None:
    model = branched(small_net()).train(training)
    images = some_images().requires_grad_()
    with use_branch(model, "adversarial"):
        loss = checkpoint(model, images, use_reentrant=True).square().sum()
    # outside `use_branch` the clean layers would be differentiated
    with pytest.raises(RuntimeError, match="use_reentrant=False"):
        loss.backward()


@pytest.mark.parametrize(
    "change",
    [lambda model: model, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
    ids=["itself", "deepcopy", "pickle"],
)
def test_a_net_that_mixes_images_refuses_tuples_copied_or_not(change) -> None:
    with torch.device("meta"):
        model = change(add_auxiliary_norms(timm.create_model("csatv2")))
    with (
        pytest.raises(ValueError, match=r"CSATv2 attends over the images of a batch .*not \("),
        use_branch(model, ("clean", "adversarial")),
    ):
        pass
    with use_branch(model, "adversarial"):
        pass


@pytest.mark.parametrize("add", [add_auxiliary_norms, add_auxiliary_tokens])
def test_a_model_in_distributed_data_parallel_is_refused(add) -> None:
    wrapped = nn.Module.__new__(DistributedDataParallel)
    nn.Module.__init__(wrapped)
    with pytest.raises(ValueError, match="add branches first, then wrap the model"):
        add(wrapped)
