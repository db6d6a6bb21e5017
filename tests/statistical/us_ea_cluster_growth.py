r"""The shipped model of cluster growth on the US Economic Areas, and three group treatments.

    spatialclusters fit cluster_growth --data us_ea/clusters_2018_2021.parquet \
        --weights us_ea/queen.parquet --linkages concordance/linked_clusters.csv -o fit.nc
    SPATIALCLUSTERS_DATA=... python tests/statistical/us_ea_cluster_growth.py fit.nc

Writes one page: what the shipped ``cluster_growth`` says, and random, correlated and
fixed group effects (constant noise, no slopes by cluster) beside pyfixest on the same rows.
"""

import argparse
import os
import sys
from pathlib import Path

import spatialclusters as sc

COMMON = {
    "formula": "growth ~ log(cluster_level) + log(linked_strength) + log(neighbor_strength)"
    " + (1 | region) + (1 | cluster)",
    "likelihood.scale": "constant",
    "priors": None,
}
TREATMENTS = ("random", "correlated", "fixed")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shipped", type=Path, help="the fit of the shipped model")
    parser.add_argument("--output", type=Path, default=Path("docs/records"))
    parser.add_argument("--seed", type=int, default=20261122)
    arguments = parser.parse_args()
    data = Path(os.environ["SPATIALCLUSTERS_DATA"])
    panel = sc.read_panel(data / "us_ea" / "clusters_2018_2021.parquet")
    weights = sc.read_weights(data / "us_ea" / "queen.parquet")
    linkages = data / "concordance" / "linked_clusters.csv"

    shipped = sc.load_fit(arguments.shipped)
    seconds = sum(shipped.provenance["timings"]["cpu_seconds"])
    fits = []
    for effect in TREATMENTS:
        groups = {"region": {"effect": effect}, "cluster": {"effect": effect}}
        spec = sc.load_model("cluster_growth", COMMON | {"groups": groups})
        fit = sc.fit(
            spec,
            panel,
            weights,
            linkages=linkages,
            seed=arguments.seed,
            tune=500,
            draws=2000,
            progress=False,
        )
        fits.append(fit)
    frequentist = sc.fit_frequentist(fits[-1])
    verdicts = [str(sc.check(fit)).splitlines()[0] for fit in (shipped, *fits)]
    terms = shipped.design.terms[:3]
    signs = [
        f"- `{row.term}`: {row.estimate:+.4f} (sd {row.std_error:.4f}), "
        f"95 % interval {row.ci_low:+.4f} to {row.ci_high:+.4f}, P(> 0) = {row.prob_positive:.4f}"
        for row in sc.coefficients(shipped).itertuples()
        if row.term in terms
    ]
    text = "\n".join(
        [
            "# Cluster growth in the US Economic Areas, 2018 to 2021",
            "",
            "`python tests/statistical/us_ea_cluster_growth.py fit.nc`",
            "",
            f"170 areas, {shipped.design.n_rows} region-clusters; absent and withheld cells count "
            "as zero in sums. Shipped model `cluster_growth`: 4 chains of 1,000 + 2,000 "
            f"iterations, {seconds:.0f} CPU seconds, compilation included. {verdicts[0]}",
            "",
            f"Coefficients, {shipped.design.data.attrs['unit']} per log point:",
            "",
            *signs,
            "",
            "Random, correlated and fixed effects of region and cluster, constant noise, no slopes "
            "by cluster, default priors; the last two columns are pyfixest's and least squares on "
            "the same rows.",
            "",
            "```",
            sc.regression_table(*fits, frequentist).to_text(),
            "```",
            "",
            *(
                f"- {effect}: {verdict}"
                for effect, verdict in zip(TREATMENTS, verdicts[1:], strict=True)
            ),
            "",
        ]
    )
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "us-ea-cluster-growth.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 0 if all("converged, all" in verdict for verdict in verdicts) else 3


if __name__ == "__main__":
    sys.exit(main())
