"""Formula terms -> numbers on the rows of the sample: the only evaluator there is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from spatialclusters.errors import SpecError, listing, suggestion
from spatialclusters.formula import Call, Expression, Formula, Term, Variable
from spatialclusters.lags import RowLag
from spatialclusters.measures import log_with_zeros
from spatialclusters.spec import ZeroRule

__all__ = ["Evaluator", "lags_once", "sample_mask"]


@dataclass(frozen=True)
class Evaluator:
    """Evaluate terms on the sample and remember what the zero rules did.

    Attributes
    ----------
    variables
        Name to values, shape (row,), all finite.
    zeros
        The zero rule of each variable (or lagged variable) whose log is taken.
    lag
        For ``lag()``; None without weights.
    dummies
        Filled while evaluating: ``zero(x)`` to its indicator.
    """

    variables: Mapping[str, np.ndarray]
    zeros: Mapping[str, ZeroRule]
    lag: RowLag | None = None
    dummies: dict[str, np.ndarray] = field(default_factory=dict)

    def term(self, term: Term) -> tuple[str, np.ndarray]:
        """Return the label that shows what was done, and the column."""
        parts = [self._expression(factor) for factor in term.factors]
        label = ":".join(label for label, _ in parts)
        return label, np.prod([values for _, values in parts], axis=0)

    def _expression(self, node: Expression) -> tuple[str, np.ndarray]:
        if isinstance(node, Variable):
            if node.name not in self.variables:
                msg = f"formula: got no variable {node.name!r}; expected one of "
                msg += f"{listing(self.variables)}.{suggestion(node.name, self.variables)}"
                raise SpecError(msg)
            return node.name, self.variables[node.name]
        inner, values = self._expression(node.argument)
        if node.function == "log":
            return self._log(inner, values)
        if node.function == "lag":
            return f"lag({inner})", self._lagged(values)
        label = f"{node.function}({inner})"
        if node.function == "center":
            return label, values - values.mean()
        if node.function == "log1p":
            if (values <= -1.0).any():
                raise SpecError(_domain(label, values <= -1.0, "values above -1"))
            return label, np.log1p(values)
        return label, np.arcsinh(values)

    def _lagged(self, values: np.ndarray) -> np.ndarray:
        if self.lag is None:
            msg = "lag(): got no weights; expected some. Give regions, or weights."
            raise SpecError(msg)
        return self.lag @ values

    def _log(self, inner: str, values: np.ndarray) -> tuple[str, np.ndarray]:
        if (values < 0.0).any():
            raise SpecError(_domain(f"log({inner})", values < 0.0, "no negative values"))
        zeros = int((values == 0.0).sum())
        rule = self.zeros.get(inner)
        if rule is None:
            if zeros:
                msg = (
                    f"log({inner}): got {zeros} zeros in {len(values)} rows and no rule for them; expected "
                    f"[zeros] {inner} = 'drop', 'minimum-and-dummy', 'asinh' or 'log1p' in the model "
                    f"file. Choose one, for instance --set zeros.{inner}=minimum-and-dummy."
                )
                raise SpecError(msg)
            return f"log({inner})", np.log(values)
        if rule == "drop" and zeros:
            msg = (
                f"log({inner}): got {zeros} zeros made by a lag; expected another rule than 'drop'."
            )
            raise SpecError(msg)
        if rule == "minimum-and-dummy" and zeros == len(values):
            msg = (
                f"log({inner}): got nothing but zeros; expected a positive value. Remove the term."
            )
            raise SpecError(msg)
        logs, dummy = log_with_zeros(values, rule)
        if dummy is not None and dummy.any():
            self.dummies[f"zero({inner})"] = dummy
        return f"{rule if rule in ('asinh', 'log1p') else 'log'}({inner})", logs


def lags_once(term: Term) -> bool:
    """Tell whether a term has a lag, and refuse one that is not linear in W.

    Linear are ``lag(x)`` and its products with what has no lag.

    Raises
    ------
    SpecError
        A lag is inside another function, or in two factors.
    """
    lags = [factor for factor in term.factors if _lags(factor)]
    outside = [f for f in lags if not (isinstance(f, Call) and f.function == "lag")]
    inside = [f for f in lags if isinstance(f, Call) and _lags(f.argument)]
    if len(lags) > 1 or outside or inside:
        msg = (
            f"formula: got {term} with weights that are estimated; expected lag(x), perhaps times "
            "what has no lag: only this is linear in W."
        )
        raise SpecError(f"{msg} Change the term, or give weights that are fixed.")
    return bool(lags)


def _lags(node: Expression) -> bool:
    while isinstance(node, Call):
        if node.function == "lag":
            return True
        node = node.argument
    return False


def sample_mask(
    formula: Formula, variables: Mapping[str, np.ndarray], zeros: Mapping[str, ZeroRule]
) -> tuple[np.ndarray, dict[str, int]]:
    """Say which rows can enter, and count those that cannot by reason, in order.

    A row is out where a variable is unknown (NaN), or is 0 under the rule ``drop``.

    Returns
    -------
    tuple
        Boolean mask over rows, and the number of rows lost to each reason.
    """
    size = len(next(iter(variables.values())))
    keep, reasons = np.ones(size, dtype=bool), {}
    for name in formula.variables:
        values = variables[name]
        for reason, lost in (
            (f"{name} unknown", np.isnan(values)),
            (
                f"{name} zero",
                (values == 0.0) & (zeros.get(name) == "drop") & _logged(formula, name),
            ),
        ):
            count = int((lost & keep).sum())
            if count:
                reasons[reason] = count
            keep = keep & ~lost
    return keep, reasons


def _logged(formula: Formula, name: str) -> bool:
    wanted = Call("log", Variable(name))
    nodes = [factor for term in formula.all_terms for factor in term.factors]
    while calls := [node for node in nodes if isinstance(node, Call)]:
        if wanted in calls:
            return True
        nodes = [call.argument for call in calls]
    return False


def _domain(label: str, bad: np.ndarray, expected: str) -> str:
    rows = listing(np.flatnonzero(bad))
    return f"{label}: got values outside its domain in {int(bad.sum())} rows ({rows}); expected {expected}."
