"""The model as equations, and what their symbols mean."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from markupsafe import Markup

from spatialclusters.design import GroupDesign
from spatialclusters.processes import outcome_process
from spatialclusters.result import Fit
from spatialclusters.spec.checks import FIELD_PARAMETERS
from spatialclusters.spillovers import has_lags

__all__ = ["equation", "space_sentences"]

_COVARIANCES: Final = {
    "icar": Markup("<b>K</b><sup>+</sup>/<i>κ</i>"),
    "bym2": Markup("[(1 − <i>φ</i>{0}) <b>I</b> + <i>φ</i>{0} <b>K</b><sup>+</sup>/<i>κ</i>]"),
    "leroux": Markup("[(1 − <i>α</i>{0}) <b>I</b> + <i>α</i>{0} <b>K</b>]<sup>−1</sup>/<i>κ</i>"),
    "car": Markup("[<b>D</b> − <i>α</i>{0} <b>A</b>]<sup>−1</sup>/<i>κ</i>"),
    "sar": Markup(
        "[(<b>I</b> − <i>λ</i>{0} <b>D</b><sup>−1</sup><b>A</b>)′"
        "(<b>I</b> − <i>λ</i>{0} <b>D</b><sup>−1</sup><b>A</b>)]<sup>−1</sup>/<i>κ</i>"
    ),
}
_GREEK: Final = {"phi": "φ", "alpha": "α", "lambda": "λ"}


def equation(fit: Fit) -> Iterator[Markup]:
    """Typeset the equation, then the distribution of each group's effects and of the noise."""
    design, n = fit.design, Markup("<sub><i>n</i></sub>")
    process, response = fit.spec.spatial.parameters, design.data.attrs["response"]
    terms = [Markup("<i>α</i>")] if design.intercept else []
    for k, term in enumerate(design.terms, start=1):
        terms.append(Markup("<i>β</i><sub>{}</sub> <code>{}</code>{}").format(k, term, n))
    terms += [_group_part(group, n) for group in design.groups]
    if "rho" in process:
        terms.insert(0, Markup("<i>ρ</i> lag(<code>{}</code>){}").format(response, n))
    left = Markup("<code>{}</code>{}").format(response, n)
    parts = [Markup('<span class="n">{}</span>').format(each) for each in terms]
    yield left + " = " + Markup(" + ").join([*parts, Markup("<i>ε</i>{}").format(n)])
    if "lambda" in process:
        yield Markup("<i>ε</i>{0} = <i>λ</i> lag(<i>ε</i>){0} + <i>u</i>{0}").format(n)
    for group in design.groups:
        if group.effect != "fixed":
            yield _group_distribution(group)
    yield _noise(fit, n)


def _group_distribution(group: GroupDesign) -> Markup:
    """Typeset how the effects of a group vary, alone or together with their neighbors."""
    name, below = group.name, Markup("<sub>{}</sub>").format(group.name)
    scale = Markup("<i>τ</i>{} is <code>sd({})</code>").format(below, name)
    if group.structure != "iid":
        text = Markup("<b>b</b>{0} ~ N(0, <i>τ</i>²{0} {1}), {2}").format(
            below, _COVARIANCES[group.structure].format(below), scale
        )
        if parameter := FIELD_PARAMETERS[group.structure]:
            symbol = Markup(", <i>{}</i>{} is <code>{}({})</code>")
            return text + symbol.format(_GREEK[parameter], below, parameter, name)
        return text + ", and effects sum to zero in each connected component"
    if len(group.labels) == 1:
        return Markup("<i>b</i>{0} ~ N(0, <i>τ</i>²{0}), {1}").format(below, scale)
    several = Markup(
        "<i>b</i>{0} ~ N(0, <b>SRS</b>), <b>S</b> is <code>sd({1})</code>, <b>R</b> is "
        "<code>cor({1})</code>"
    )
    return several.format(below, name)


def space_sentences(fit: Fit) -> Iterator[str]:
    """Say what the symbols of spatial dependence mean."""
    design, process = fit.design, fit.spec.spatial.parameters
    if process or has_lags(fit):
        assert design.lag is not None
        inside = " inside the same cluster" if "row_cluster" in design.data else ""
        mean = ", each with the mean of its rows" if (design.lag.counts > 1).any() else ""
        yield f"lag() is the sum over neighboring regions{inside}, weighted by W{mean}."
    if design.psi is not None and design.weights is not None:
        assert design.weights.blend is not None
        yield f"{design.weights.blend.describe()['text']}"
    if process:
        space = outcome_process(fit.spec, design)
        assert space is not None
        low, high = (f"{end:.4g}".replace("-", "−") for end in space.support)
        symbols = " and ".join({"rho": "ρ is rho", "lambda": "λ is lambda"}[p] for p in process)
        yield f"{symbols}, between {low} and {high}, where the process exists."
    shared = [group for group in design.groups if group.structure != "iid"]
    if shared:
        inside = " (of the same cluster)" if any(":" in group.name for group in shared) else ""
        yield (
            f"Of effects that neighbors{inside} share, A says who is a neighbor of whom, D is the diagonal "
            "matrix of the sums of its rows, and K = D − A. The number κ, one for each connected "
            "component, makes τ the typical standard deviation of an effect. Where there are no "
            "neighbors an effect is N(0, τ²)."
        )


def _noise(fit: Fit, n: Markup) -> Markup:
    normal, t = Markup("N"), Markup("<i>t</i><sub><i>ν</i></sub>")
    scales = {
        "constant": Markup("<i>σ</i>²)"),
        "by-cluster": Markup("<i>σ</i>²<sub>cluster(<i>n</i>)</sub>)"),
        "size": Markup(
            "<i>σ</i>² [1 − <i>s</i> + <i>s</i> (median size / size{})<sup><i>p</i></sup>]), <i>s</i> is "
            "<code>size.share</code>, <i>p</i> is <code>size.power</code>"
        ).format(n),
    }
    family = t if fit.spec.likelihood.family == "student-t" else normal
    noise = "u" if "lambda" in fit.spec.spatial.parameters else "ε"
    scale = scales[fit.spec.likelihood.scale]
    return Markup("<i>{}</i>{} ~ {}(0, {}").format(noise, n, family, scale)


def _group_part(group: GroupDesign, n: Markup) -> Markup:
    level = Markup("<sub>{}(<i>n</i>)</sub>").format(group.name)
    parts = [
        Markup("<i>b</i>{}").format(level)
        if label == "1"
        else Markup("<i>b</i>′{} <code>{}</code>{}").format(level, label, n)
        for label in group.labels
    ]
    return Markup(" + ").join(parts)
