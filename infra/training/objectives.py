"""Which exits learn in a step and how much each counts."""

import random

METHODS = ("sft", "soft", "lite", "sortednet")


def exit_weights(method, exits, *, step=0, seed=42, weights=None, exits_per_step=1):
    """Weights by depth, adding up to 1; exits that are absent need not be computed.

    - sft: full depth only.
    - soft: the mean over all exits (Sorted LLaMA).
    - lite: sum(w * L) / sum(w), with w = 1, 2, ... unless `weights` says otherwise (LITE).
    - sortednet: the mean over a few exits, drawn anew for every step (SortedNet). The draw depends on seed and step alone,
      because all processes must run the same layers.
    """
    if method == "sft":
        return {exits[-1]: 1.0}
    if method == "soft":
        return {depth: 1 / len(exits) for depth in exits}
    if method == "lite":
        weights = weights or range(1, len(exits) + 1)
        return {depth: weight / sum(weights) for depth, weight in zip(exits, weights, strict=True)}
    if method == "sortednet":
        drawn = random.Random(f"{seed}/{step}").sample(exits, min(exits_per_step, len(exits)))
        return {depth: 1 / len(drawn) for depth in sorted(drawn)}
    raise ValueError(f"method '{method}' is none of {', '.join(METHODS)}")
