"""What of a normalisation layer has to be separate, and how far the branches come apart.

Later papers hold that separate affine parameters do the work, not separate statistics
(arXiv 2403.19150, 2210.04886). AdvProp with both, either and neither, and mixed batches; then the
accuracy of clean and auxiliary branch on clean images, and their distance layer by layer.

    python experiments/branches.py
    python experiments/branches.py --quick

Time and result: docs/reproducing.md, experiments 4 and 5.
"""

from __future__ import annotations

from measures import distances, each_branch, shift
from settings import longer, method
from study import Group, Options, base_config, main

from advprop.config import RunConfig
from advprop.methods.learning import Form


def separate(config: RunConfig, what: str, form: Form = "auto") -> RunConfig:
    """AdvProp whose branches own only a part of each layer."""
    return config.model_copy(
        update={
            "model": config.model.model_copy(update={"separate": what}),
            "method": config.method.model_copy(update={"form": form}),
        }
    )


def plan(name: str, options: Options) -> list[Group]:
    base = base_config(name, options)
    advprop = method(base, "advprop")
    variants = {
        "vanilla": base,
        "vanilla_equal_cost": longer(base, advprop.method.build().passes_per_image),
        "both": advprop,
        # one pass over both kinds, so that they share the statistics of their mixture
        "affine only": separate(advprop, "affine", "joint"),
        "affine only, two passes": separate(advprop, "affine"),
        "statistics only": separate(advprop, "statistics"),
        "neither (mixed)": method(base, "mixed"),
    }
    return [Group(name="branches", variants=variants)]


if __name__ == "__main__":
    main("branches", plan, extras={"shift": shift, "branch": each_branch, "distances": distances})
