"""Where in its life an agent stands: what losses and learning rates may hang on."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Age:
    """So many updates lived of so many."""

    update: int = 0
    updates: int = 1
    familiar: tuple[int, int] | None = None
    """the least and the most updates of lives that what looks at them was made for; None: any"""

    @property
    def progress(self) -> float:
        """The part that is lived, 0 to 1; 1 for whoever lives on beyond its life."""
        return min(1.0, self.update / self.updates)

    @property
    def log_length(self) -> float:
        """log₂ of the whole life's updates, within what is familiar: a net that met lives of 8 to
        32 updates would make anything of those of 512."""
        low, high = self.familiar or (self.updates, self.updates)
        return math.log2(min(max(self.updates, low), high))

    def next(self) -> Age:
        """After another update."""
        return replace(self, update=self.update + 1)


BEGINNING = Age()
