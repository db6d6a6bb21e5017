"""The items of two reporting guidelines, and where on the page each is answered, or why it is not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from spatialclusters.reporting.blocks import Block, Paragraph, Section, Table
from spatialclusters.reporting.results import Results
from spatialclusters.reporting.values import Link, Sentence, Shown, say

__all__ = ["guidelines_section"]


class _Item(NamedTuple):
    """One item: what is asked, and the answer, which begins with a link unless there is none."""

    asked: str
    answer: Shown


def guidelines_section(results: Results) -> Section:
    """List the items of BARG and of WAMBS with a link to the answer of each."""
    blocks: list[Block] = [
        Paragraph(
            "Two guidelines of the field, item by item. What a program cannot know (why the question "
            "matters, which loss a decision has) is marked as not reported: it belongs into the text "
            "around this report."
        ),
        _table("Bayesian Analysis Reporting Guidelines (Kruschke 2021)", _barg(results)),
        _table("WAMBS checklist (Depaoli and van de Schoot 2017)", _wambs(results)),
        Paragraph(
            "Kruschke, J. K. (2021). Bayesian Analysis Reporting Guidelines. Nature Human Behaviour 5, "
            "doi:10.1038/s41562-021-01177-7. Depaoli, S., and van de Schoot, R. (2017). Improving "
            "transparency and replication in Bayesian statistics: The WAMBS-Checklist. Psychological "
            "Methods 22, doi:10.1037/met0000065."
        ),
    ]
    return Section("guidelines", "Reporting guidelines", "What it rests on", blocks)


def _table(caption: str, items: Iterator[_Item]) -> Table:
    rows: list[tuple[Shown, ...]] = [(item.asked, item.answer) for item in items]
    return Table(caption, ("item", "where, or why not"), rows)


def _at(text: str, section: str, more: str = "") -> Sentence:
    return say("{}{}", Link(text, section), more)


def _barg(results: Results) -> Iterator[_Item]:
    fit = results.fit
    not_here = "Not reported: it is for the text around this page to say."
    yield _Item("Why Bayesian", not_here)
    if fit.spec.description:
        yield _Item("Goals of the analysis", _at("Model", "model", ", in the words of its file"))
    else:
        yield _Item("Goals of the analysis", not_here)
    yield _Item("1A Data variables", _at("Data", "data"))
    yield _Item("1B Likelihood and parameters", _at("Model", "model", ": equations and groups"))
    yield _Item(
        "1C Prior distribution",
        _at(
            "Model", "model", ": every prior with what it means; why it was chosen is not reported"
        ),
    )
    yield _Item("1D Formal specification", _at("Reproduction", "reproduction", ": the model file"))
    yield _Item("1E Prior predictive check", _at("Prior predictive", "priors"))
    yield _Item("2A Software", _at("Computation", "computation", ": exact versions"))
    yield _Item("2B Convergence of the chains", _at("Computation", "computation", ": R-hat, ranks"))
    yield _Item(
        "2C Resolution of the chains",
        _at("Computation", "computation", ": ESS and Monte Carlo error, derived values included"),
    )
    engine = fit.provenance["engine"]
    yield _Item(
        "2D If not MCMC",
        "MCMC throughout"
        + (
            ": coefficients and effects are drawn exactly given the hyperparameters."
            if engine == "collapsed"
            else "."
        ),
    )
    yield _Item("3A Posterior predictive check", _at("Does the model describe the data?", "fit"))
    yield _Item("3B Summary of the posterior", _at("Coefficients", "coefficients", ", and after"))
    ladder = _at("Model ladder", "ladder", ": models are compared by leave-one-out instead")
    yield _Item(
        "3C Bayes factors",
        ladder
        if results.others
        else "Not reported: models are compared by leave-one-out, and no other was given.",
    )
    no_decision = "Not reported: the page estimates, it decides nothing."
    yield _Item("4 Decisions, their loss, ROPE limits and thresholds", no_decision)
    yield _Item("4E Estimates beside decisions", _at("Coefficients", "coefficients"))
    yield _Item("5A-C Sensitivity to priors", _at("Sensitivity", "sensitivity", ": power-scaling"))
    yield _Item("5D-E Sensitivity of Bayes factors and decisions", "Not reported: there are none.")
    yield _Item("6A Software and installation", _at("Reproduction", "reproduction"))
    yield _Item(
        "6B-C Script and data",
        _at(
            "Reproduction",
            "reproduction",
            ": command, seed and digests; the data are yours to share",
        ),
    )
    yield _Item("6D Auxiliary files", _at("Reproduction", "reproduction", ": numbers as JSON"))
    yield _Item(
        "6E Runs of MCMC", _at("Reproduction", "reproduction", ": the same draws, bit by bit")
    )
    yield _Item(
        "6F Figures that can be read", "Drawn as vectors, colors for any vision, each with text."
    )


def _wambs(results: Results) -> Iterator[_Item]:
    yield _Item("1 Are the priors understood?", _at("Model", "model", ": in units of the outcome"))
    yield _Item("2 Do the chains converge?", _at("Computation", "computation", ": ranks by chain"))
    yield _Item(
        "3 Also after doubling the iterations?",
        _at(
            "Computation",
            "computation",
            ": not run twice; R-hat compares the halves of every chain instead",
        ),
    )
    yield _Item(
        "4 Has the posterior's histogram enough information?",
        _at("Computation", "computation", ": ESS of bulk and tails, instead of a look"),
    )
    yield _Item(
        "5 Are the chains strongly autocorrelated?", _at("Computation", "computation", ": ESS")
    )
    expected = results.fit.spec.expects
    yield _Item(
        "6 Do the posteriors make substantive sense?",
        _at("In short", "headline", ": signs that were expected before")
        if expected
        else _at("Convergence", "convergence", "; no signs were stated before"),
    )
    yield _Item(
        "7 Do other priors of variances change the results?",
        _at(
            "Sensitivity",
            "sensitivity",
            ": power-scaling of those of groups; other families not run",
        ),
    )
    yield _Item(
        "8 Is there an effect of the prior, beside noninformative ones?",
        _at("Beside frequentist estimates", "frequentist", ": estimators without priors"),
    )
    yield _Item("9 Are the results stable?", _at("Sensitivity", "sensitivity"))
    yield _Item(
        "10 Is the interpretation Bayesian?",
        _at("In short", "headline", ": intervals and probabilities of what is claimed"),
    )
