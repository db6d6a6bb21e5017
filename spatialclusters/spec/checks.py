"""Whether the parts of a model specification agree with each other and with the formula."""

from __future__ import annotations

import difflib
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from spatialclusters.errors import SpecError, listing, suggestion
from spatialclusters.formula import FUNCTIONS, Call, Formula
from spatialclusters.spec.distributions import Uniform

if TYPE_CHECKING:
    from spatialclusters.spec.model import ModelSpec

BARE = r"[A-Za-z0-9_-]+"
MAX_PROBLEMS = 20
RESERVED = ("intercept", "sigma", "nu", "rho", "lambda")
MEASURES = (
    "industry_strength",
    "cluster_strength",
    "cluster_level",
    "linked_strength",
    "neighbor_strength",
    "location_quotient",
    "rest_of_cluster",
)
SPATIAL_GROUPS = ("region", "region:cluster")
PAIRS = tuple(
    (family, outcome)
    for family in ("gaussian", "student-t")
    for outcome in ("none", "sar", "sem", "sac")
)
"""Likelihoods and the outcome processes they can have."""
OUTCOME_PARAMETERS = {"none": (), "sar": ("rho",), "sem": ("lambda",), "sac": ("rho", "lambda")}
"""Parameters of each process of the outcome."""
FIELD_PARAMETERS = {
    "iid": None,
    "icar": None,
    "car": "alpha",
    "leroux": "alpha",
    "bym2": "phi",
    "sar": "lambda",
}
"""What governs each structure of effects, beside its standard deviation."""
_SUPPORT = {
    "coefficient": ("normal", "student_t", "uniform", "flat"),
    "scale": (
        "half_normal",
        "half_student_t",
        "exponential",
        "uniform",
        "flat",
        "inverse_scale",
    ),
    "share": ("beta", "uniform"),
    "dependence": ("beta", "uniform"),
    "correlation": ("lkj",),
    "shares": ("dirichlet",),
}


def key(part: str) -> str:
    """Write a key as TOML does: quoted unless it is bare."""
    return part if re.fullmatch(BARE, part) else string(part)


def string(text: str) -> str:
    """Write a TOML string; JSON's escapes are TOML's, but for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def unknown(got: str, allowed: Iterable[str], what: str) -> str:
    """Word a name that is not among the allowed ones."""
    names = list(allowed)
    listed = f": {listing(names, 20)}" if names else ", of which there is none"
    return f"got {listing([got])}; expected {what}{listed}.{suggestion(got, names)}"


def problems(spec: ModelSpec) -> Iterator[str]:
    """Word every disagreement between the tables of a model and its formula."""
    formula = spec.parsed_formula
    yield from _table_problems(spec)
    for name in formula.variables:
        if name in RESERVED:
            yield f"formula: got the variable {name!r}; expected no parameter's name. Rename it."
    # no more than are shown: to look for what was meant takes long among many
    found = list(itertools.islice(_label_problems(spec), MAX_PROBLEMS + 1))
    if 0 < len(found) <= MAX_PROBLEMS and (cause := _misspelled(spec, len(found))):
        name, meant, left = cause
        why = "a measure" if meant in MEASURES else "as other tables of the model call it"
        got = f"formula: got the variable {listing([name])}"
        yield f"{got}; expected {meant!r}, {why}. Correct its spelling."
        found = left
    yield from found


def _misspelled(spec: ModelSpec, count: int) -> tuple[str, str, list[str]] | None:
    """Find one misspelled variable of the formula that explains why labels are not found.

    Returns
    -------
    tuple
        What it is called, what is meant, and the problems that remain; None if there is none.
        A variable that is a measure is spelled right. Another name than a measure must be
        meant by two labels: if one label differs, that may be the one that is misspelled.
    """
    formula = spec.parsed_formula
    labels = [spec.roles.convergence or "", *spec.roles.specialization, *spec.zeros]
    labels += [*spec.expects, *spec.priors]
    named = {word for label in labels for word in re.findall(r"[A-Za-z_]\w*", label)}
    meant = sorted({*MEASURES, *named} - {*FUNCTIONS, *RESERVED})
    for name in formula.variables:
        if name in MEASURES:
            continue
        for near in difflib.get_close_matches(name, [m for m in meant if m != name], n=3):
            text = re.sub(rf"\b{re.escape(name)}\b", near, spec.formula)
            try:
                other = spec.model_copy(update={"formula": text})
                left = list(itertools.islice(_label_problems(other), count))
            except SpecError:  # the formula has the other name, too, and both do not fit in
                continue
            if count - len(left) >= (1 if near in MEASURES else 2):
                return name, near, left
    return None


def _label_problems(spec: ModelSpec) -> Iterator[str]:
    """Word every label in a table that names nothing of the formula."""
    formula, labels = spec.parsed_formula, spec.covariate_labels
    terms = [str(term) for term in formula.terms]
    chosen = [("convergence", spec.roles.convergence)] if spec.roles.convergence else []
    chosen += [("specialization", label) for label in spec.roles.specialization]
    for role, label in chosen:
        if label not in terms:
            yield f"roles.{role}: {unknown(str(label), terms, 'a term of the formula')}"
    inside = logged(formula)
    for name in spec.zeros:
        if name not in inside:
            yield f"zeros: {unknown(name, inside, 'what the formula takes a log of')}"
    for label in spec.expects:
        if label not in labels:
            yield f"expects: {unknown(label, labels, 'a covariate')}"
    kinds = _parameters(spec)
    for name, prior in spec.priors.items():
        if name not in kinds:
            yield f"priors: {unknown(name, kinds, 'a parameter of this model')}"
        elif prior.distribution not in _SUPPORT[kinds[name]]:
            allowed = listing(_SUPPORT[kinds[name]])
            yield f"priors.{key(name)}: got {prior.describe()}; expected one of {allowed}."
        elif kinds[name] == "scale" and isinstance(prior, Uniform) and prior.lower < 0:
            yield f"priors.{key(name)}: got {prior.describe()}; expected lower of at least 0."
        elif kinds[name] == "share" and isinstance(prior, Uniform) and not _is_share(prior):
            yield f"priors.{key(name)}: got {prior.describe()}; expected bounds from 0 to 1."


def _is_share(prior: Uniform) -> bool:
    return prior.lower >= 0 and prior.upper <= 1


def logged(formula: Formula) -> list[str]:
    """Return what logs are taken of, as labels; of nested logs the innermost counts."""
    found = {}
    for node in (factor for term in formula.all_terms for factor in term.factors):
        inner, argument = None, node
        while isinstance(argument, Call):
            if argument.function == "log":
                inner = str(argument.argument)
            argument = argument.argument
        if inner is not None:
            found[inner] = True
    return list(found)


def _table_problems(spec: ModelSpec) -> Iterator[str]:
    formula, growth = spec.parsed_formula, spec.growth
    if growth is None and formula.response == "growth":
        yield "growth: got no such table; expected [growth] for the response 'growth'. Add it."
    if growth is not None and formula.response != "growth":
        got = listing([formula.response])
        yield f"formula: got response {got}; expected 'growth', as there is a [growth] table."
    if growth is not None and growth.years <= 0:
        got = f"from = {growth.from_year}, to = {growth.to_year}"
        yield f"growth: got {got}; expected from < to."
    used = [name for name in formula.variables if name in MEASURES]
    if used and spec.cells is None:
        yield (
            f"cells: got no such table; expected [cells] with absent and withheld, since "
            f"{listing(used)} are sums over cells. State what missing cells count as."
        )
    if spec.cells is not None and (spec.cells.withheld == "filled") != (
        spec.cells.fill is not None
    ):
        got = f"withheld = {spec.cells.withheld!r}, fill = {spec.cells.fill!r}"
        yield f"cells: got {got}; expected fill = 'midpoint' only where withheld = 'filled'."
    for group in formula.groups:
        chosen = spec.groups[group.name]
        if group.slopes and chosen.effect == "fixed":
            expected = "'random' or 'correlated' for a group with slopes"
            yield f"groups.{key(group.name)}.effect: got 'fixed'; expected {expected}."
        if chosen.structure == "iid":
            continue
        where, got = f"groups.{key(group.name)}.structure", repr(chosen.structure)
        if group.name not in SPATIAL_GROUPS:
            yield f"{where}: got {got}; expected 'iid' but for {listing(SPATIAL_GROUPS)}."
        elif group.slopes or not group.intercept:
            yield f"{where}: got {got} for a group with slopes; expected (1 | {group.name})."
        elif chosen.effect == "fixed":
            yield f"{where}: got {got} for fixed effects; expected 'iid', or other effects."
    if (spec.likelihood.family, spec.spatial.outcome) not in PAIRS:
        allowed = [outcome for family, outcome in PAIRS if family == spec.likelihood.family]
        yield (
            f"spatial.outcome: got {spec.spatial.outcome!r} with family {spec.likelihood.family!r}; "
            f"expected one of {listing(allowed)}. Give region effects a structure instead."
        )
    if spec.likelihood.scale == "size" and growth is None:
        yield "likelihood.scale: got 'size'; expected [growth], whose base value is the size."


def _parameters(spec: ModelSpec) -> dict[str, str]:
    """Return the parameters a prior may be stated for, each with its kind of support.

    Also those that only another zero rule, group effect or likelihood would have: a run may
    override these, and a prior that is then not needed is not used.
    """
    formula, labels = spec.parsed_formula, spec.covariate_labels
    kinds = {"intercept": "coefficient"} if formula.intercept else {}
    kinds |= {str(term): "coefficient" for term in formula.all_terms}
    for group in formula.groups:
        slopes = {str(slope) for slope in group.slopes}
        kinds[f"sd({group.name})"] = "scale"
        varying = [label for label, origin in labels.items() if origin in slopes]
        kinds |= {f"sd({group.name}, {label})": "scale" for label in varying}
        if group.intercept + len(slopes) > 1:
            kinds[f"cor({group.name})"] = "correlation"
    kinds |= dict.fromkeys(("sigma", "nu", "size.power", "sd(log sigma)"), "scale")
    kinds["size.share"] = "share"
    kinds |= dict.fromkeys(("rho", "lambda", "delta"), "dependence") | {"share": "shares"}
    for group in formula.groups:
        if group.name in SPATIAL_GROUPS:
            names = sorted({name for name in FIELD_PARAMETERS.values() if name})
            kinds |= {f"{name}({group.name})": "dependence" for name in names}
    return kinds | dict.fromkeys(labels, "coefficient")
