"""Fitness shaping: what a candidate's fitness weighs in the gradient. Fitness is maximised.

A fitness that is not finite is the worst; equal fitness has equal weight; where all are equal
every weight is 0. Shapes: n pairs; columns are φ + σε and φ − σε.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np

from epg.registry import check_interface, find
from epg.settings import Named


class Shaping(ABC):
    """Turns the fitness of a generation into weights."""

    Settings: ClassVar[type[Named]] = Named
    """The keys below `shaping:`, besides `name`."""
    needs_same_mdps = False
    """Whether all pairs must have lived in the same MDPs."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    @abstractmethod
    def weigh(self, fitness: np.ndarray) -> np.ndarray:
        """Weights [n, 2] of fitness [n, 2], in which NaN stands for a candidate that failed."""


class CenteredRank(Shaping):
    """By the rank among all 2n."""

    needs_same_mdps = True

    def weigh(self, fitness: np.ndarray) -> np.ndarray:
        return centered_rank(fitness)


class PairRank(Shaping):
    """By sign and rank of the difference within each pair."""

    def weigh(self, fitness: np.ndarray) -> np.ndarray:
        return pair_rank(fitness)


def make_shaping(settings: Named) -> Shaping:
    """The shaping that settings speak of. Raises `UserError`."""
    found = find("shaping", settings.name)
    check_interface("shaping", settings.name, found, (Shaping,))
    made: Shaping = found(settings)
    return made


def centered_rank(fitness: np.ndarray) -> np.ndarray:
    """Ranks among all 2n, from −0.5 (worst) to 0.5 (best): [n, 2] to [n, 2].

    Wierstra et al. 2014 (arXiv 1106.4487), in the linear form of Salimans et al. 2017
    (arXiv 1703.03864). Needs the same MDPs for all pairs.
    """
    ranks = _rank(worst_where_broken(fitness).ravel()) - 1
    return (ranks / (fitness.size - 1) - 0.5).reshape(fitness.shape)


def pair_rank(fitness: np.ndarray) -> np.ndarray:
    """Sign times rank of the difference within each pair, ± half of it: [n, 2] to [n, 2].

    Pairs that lived in different MDPs are never compared by their level of fitness.
    """
    difference = pair_difference(fitness)
    half = np.sign(difference) * _rank(np.abs(difference)) / len(difference) / 2
    return np.stack((half, -half), axis=1)


def pair_difference(fitness: np.ndarray) -> np.ndarray:
    """Fitness of φ + σε less that of φ − σε, [n]; ±inf where one failed, 0 where both did."""
    plus, minus = worst_where_broken(fitness).T
    with np.errstate(invalid="ignore"):
        difference = plus - minus
    return np.where(np.isnan(difference), 0.0, difference)


def worst_where_broken(fitness: np.ndarray) -> np.ndarray:
    """−inf for what is not finite."""
    return np.where(np.isfinite(fitness), fitness, -np.inf)


def _rank(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, ties sharing their mean."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[which]
