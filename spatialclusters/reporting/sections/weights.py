"""The spatial weights: who is whose neighbor."""

from __future__ import annotations

from typing import Any

from spatialclusters.plots import plot_weights
from spatialclusters.reporting.blocks import Block, Notes, Paragraph, Section, Table
from spatialclusters.reporting.figures import picture
from spatialclusters.reporting.results import Results
from spatialclusters.reporting.values import Shown, count, fixed, quoted, say
from spatialclusters.result import Fit
from spatialclusters.spillovers import has_lags

__all__ = ["weights_section"]


def weights_section(results: Results) -> Section:
    """Describe the spatial weights, with every isolate by name."""
    fit, title, part = results.fit, "Spatial weights", "What it rests on"
    if fit.weights is None:
        text = "The model was fitted without spatial weights: no term looks at neighboring regions."
        return Section("weights", title, part, [Paragraph(text)])
    facts: dict[str, Any] = dict(fit.weights.describe())
    rows: list[tuple[Shown, ...]] = [
        ("kind", str(facts["kind"])),
        ("row-standardized", "yes" if facts["row_standardized"] else "no"),
        ("regions", count(facts["regions"])),
        ("links", count(facts["links"])),
        (
            "neighbors of a region: least, mean, most",
            say(
                "{}, {}, {}",
                count(facts["min_neighbors"]),
                fixed(facts["mean_neighbors"], 2),
                count(facts["max_neighbors"]),
            ),
        ),
        ("connected components", count(facts["components"])),
        ("symmetric", "yes" if facts["symmetric"] else "no"),
        ("SHA-256", str(facts["digest"])),
    ]
    blocks: list[Block] = [Table("Which regions are neighbors", ("property", "value"), rows)]
    if fit.weights.blend is not None:
        blocks.insert(0, Paragraph(quoted(str(fit.weights.blend.describe()["text"]))))
    isolates = list(fit.weights.isolates)
    alone = say("Regions without neighbors ({})", count(len(isolates)))
    blocks.append(Notes(alone, isolates) if isolates else Paragraph("Every region has a neighbor."))
    if fit.spec.spatial.parameters or has_lags(fit):
        blocks.append(Paragraph(_lag_sentence(fit)))
    if fit.geometry is not None:
        alt = say(
            "Map of the {} regions with a line between neighbors: {} links, {} regions without any.",
            count(facts["regions"]),
            count(facts["links"]),
            count(len(isolates)),
        )
        blocks.append(picture(plot_weights(fit), alt, "Who is whose neighbor.", raster=True))
    if fit.weights.notes:
        blocks.append(Notes("Notes on the weights", [quoted(note) for note in fit.weights.notes]))
    return Section("weights", title, part, blocks)


def _lag_sentence(fit: Fit) -> Shown:
    """Say which cells the lag over rows connects."""
    lag, blocks = fit.design.lag, fit.spec.spatial.blocks
    assert fit.weights is not None
    assert lag is not None
    components = int(lag.components.max()) + 1
    what = "region-clusters" if "row_cluster" in fit.design.data else "regions"
    alone = say("{} have no neighbor there", count(lag.isolates))
    rule = {
        "restandardize": "weights of those that are there sum to one again",
        "subset": "absent neighbors count as zero",
    }[blocks]
    return say(
        "Over the sample, lag() connects {} {} in {} connected component{}; {}.{}",
        count(len(lag.counts)),
        what,
        count(components),
        "s" if components > 1 else "",
        alone if lag.isolates else "all have a neighbor there",
        f" Where neighbors are absent, {rule}." if fit.weights.row_standardized else "",
    )
