"""Returns and value targets, which can be differentiated in all that they are made of.

Shape letters: P agents, T steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from epg.rules.rollout import next_rows


def lambda_returns(
    rewards: Tensor, discounts: Tensor, following: Tensor, joined: Tensor, smoothing: Tensor | float
) -> Tensor:
    """[P, T] g_t = r + d ((1 − λ) v′ + λ g_{t+1}), and r + d v′ where rows are not joined.

    discounts: γ, 0 where the MDP ended; following: v′ of what each step led to; smoothing: λ, one
    number, [P, 1] or [P, T] (Xu et al. 2018, arXiv 1805.09801, equation 2).
    """
    smoothing = torch.as_tensor(smoothing, dtype=rewards.dtype, device=rewards.device)
    kept = torch.where(joined, smoothing.expand_as(rewards), 0.0)
    own = rewards + discounts * (1 - kept) * following
    return backwards_sum(own, discounts * kept)


def backwards_sum(terms: Tensor, kept: Tensor) -> Tensor:
    """[P, T] x_t = terms_t + kept_t x_{t+1}, from the last row, whose `kept` counts for nothing."""
    sums = [terms[:, -1]]
    rows = zip(terms.unbind(1)[-2::-1], kept.unbind(1)[-2::-1], strict=True)
    for term, part in rows:
        sums.append(term + part * sums[-1])
    return torch.stack(sums[::-1], 1)


def vtrace(
    values: Tensor,
    following: Tensor,
    rewards: Tensor,
    discounts: Tensor,
    joined: Tensor,
    ratios: Tensor,
    smoothing: Tensor | float,
    leak: tuple[Tensor | float, Tensor | float],
) -> tuple[Tensor, Tensor]:
    """Value targets and the weights ρ of advantages, each [P, T]: V-trace that leaks.

    values, following: v of each state, and of what each step led to; ratios: π/μ; smoothing: λ;
    leak: α of ρ and of c, by which min(1, ratio) counts, and the ratio itself by 1 − α; each one
    number, [P, 1] or [P, T] (Zahavy et al. 2020, arXiv 2002.12928, section 3; Espeholt et al. 2018
    where both are 1).
    """  # fmt: skip
    clipped = ratios.clamp(max=1.0)
    weights = leak[0] * clipped + (1 - leak[0]) * ratios
    traces = smoothing * (leak[1] * clipped + (1 - leak[1]) * ratios)
    errors = weights * (rewards + discounts * following - values)
    kept = torch.where(joined, discounts * traces, 0.0)
    return values + backwards_sum(errors, kept), weights


def bootstrapped(
    rewards: Tensor, discounts: Tensor, targets: Tensor, values: Tensor, following: Tensor,
    joined: Tensor, mix: Tensor | float = 1.0,
) -> Tensor:  # fmt: skip
    """[P, T] what an action was worth: r + d v″, v″ the next row's target (for 1 − mix of it its
    value), where rows are not joined the value of what the step led to."""
    after = mix * next_rows(targets, joined, following)
    if not (isinstance(mix, float) and mix == 1.0):
        after = after + (1 - mix) * next_rows(values, joined, following)
    return rewards + discounts * after
