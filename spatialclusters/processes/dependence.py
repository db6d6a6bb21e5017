"""Parameters of spatial dependence: which a model has, and where they may lie."""

from __future__ import annotations

from spatialclusters.design import Design
from spatialclusters.parameters import check_support
from spatialclusters.processes.fields import FIELDS
from spatialclusters.processes.outcome import outcome_process
from spatialclusters.spec import ModelSpec

__all__ = ["check_dependence", "dependence_names", "supports"]


def dependence_names(spec: ModelSpec) -> list[str]:
    """Return ``phi(region)`` and the like in the order of the groups, then ``rho, lambda``.

    Examples
    --------
    >>> from spatialclusters.spec import parse_spec
    >>> spec = parse_spec('''formula = "y ~ x + (1 | region)"
    ... [groups.region]
    ... structure = "bym2"
    ... [spatial]
    ... outcome = "sar"''')
    >>> dependence_names(spec)
    ['phi(region)', 'rho']
    """
    fields = [
        f"{chosen.parameter}({name})" for name, chosen in spec.groups.items() if chosen.parameter
    ]
    return [*fields, *spec.spatial.parameters]


def supports(spec: ModelSpec, design: Design) -> dict[str, tuple[float, float]]:
    """Return the open interval of every parameter of spatial dependence."""
    found = []
    for group in design.groups:
        field = FIELDS.get(group.structure)
        if field is not None and field.parameter is not None:
            found.append(field.support)
    space = outcome_process(spec, design)
    if space is not None:
        found += [space.support] * len(space.parameters)
    return dict(zip(dependence_names(spec), found, strict=True))


def check_dependence(spec: ModelSpec, design: Design) -> None:
    """Refuse, before anything is compiled, priors of dependence that reach outside the support.

    Raises
    ------
    SpecError
        A uniform prior does; with the support for these weights.
    """
    stated = {name: prior for name, prior in spec.priors.items() if prior.distribution == "uniform"}
    # finding where a process exists may take a while: only where somebody asks
    found = supports(spec, design) if stated.keys() & {*dependence_names(spec)} else {}
    if design.psi is not None and design.psi.nodes:
        found[design.psi.parameter] = design.psi.support
    for name, support in found.items():
        if name in stated:
            check_support(name, stated[name], support)
