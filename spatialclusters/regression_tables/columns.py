"""Columns of a table: the estimators of all results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pandas as pd

from spatialclusters.comparison import Result, estimator_frames
from spatialclusters.frequentist import Frequentist
from spatialclusters.mixed import MixedModel
from spatialclusters.result import Fit

if TYPE_CHECKING:
    from spatialclusters.loo import Loo

__all__ = ["SHOWN", "Column", "columns_of"]

SHOWN: Final = 8
"""Characters of a digest that are shown."""

_SPATIAL: Final = ("lag(", "neighbor_strength")  # what in a term says that it needs W


@dataclass(frozen=True, eq=False)
class Column:
    """An estimator of a result, its tidy frame, and how well the result predicts if known."""

    result: Result
    estimator: str
    frame: pd.DataFrame
    loo: Loo | None

    @property
    def rows(self) -> int:
        """Rows that the estimator used."""
        if isinstance(self.result, Fit):
            return self.result.design.n_rows
        if isinstance(self.result, Frequentist):
            return self.result.rows_used[self.estimator]
        return self.result.n_rows

    @property
    def weights(self) -> str:
        """Kind and digest of W, or ``none`` where the estimator has no use for it."""
        result = self.result
        used = any(part in str(term) for term in self.frame["term"] for part in _SPATIAL)
        if isinstance(result, Fit):
            used |= result.spec.spatial.outcome != "none"
            used |= any(group.structure != "iid" for group in result.design.groups)
            weights = result.weights
            kind, digest = (weights.kind, weights.digest) if weights else (None, None)
        else:
            used |= not isinstance(result, Frequentist | MixedModel)
            kind, digest = result.weights, result.weights_digest
        return f"{kind}, {digest[:SHOWN]}" if used and digest else "none"


def columns_of(results: Sequence[Result], loo: Sequence[Loo | None]) -> list[Column]:
    """Return the estimators of all results in order."""
    return [
        Column(result, estimator, frame, given)
        for result, given in zip(results, loo or [None] * len(results), strict=True)
        for estimator, frame in estimator_frames(result).items()
    ]
