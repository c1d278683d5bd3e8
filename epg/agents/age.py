"""Where in its life an agent stands: what losses and learning rates may hang on."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Age:
    """So many updates lived of so many."""

    update: int = 0
    updates: int = 1

    @property
    def progress(self) -> float:
        """The part that is lived, 0 to 1; 1 for whoever lives on beyond its life."""
        return min(1.0, self.update / self.updates)

    @property
    def log_length(self) -> float:
        """log₂ of the whole life's updates."""
        return math.log2(self.updates)


BEGINNING = Age()
