"""How the learning rate moves: a pure function of the step."""

import math


def warmup_cosine(step: int, n_steps: int, warmup: float) -> float:
    """Return the share of the highest rate for step 0 .. n_steps - 1.

    Linear to 1 over the first `warmup` share of the steps, then a cosine down to 0 after the last
    (Loshchilov & Hutter 2017).
    """
    n_warmup = round(n_steps * warmup)
    if step < n_warmup:
        return (step + 1) / n_warmup
    progress = (step - n_warmup) / max(1, n_steps - n_warmup)
    return 0.5 * (1 + math.cos(math.pi * progress))
