"""Time and memory of a report, step by step.

    spatialclusters fit employment_growth --data us_ea/industries_2018_2021.parquet \\
        --regions us_ea/boundaries.geojson --weights us_ea/queen.parquet \\
        --linkages concordance/linked_clusters.csv --seed 20261125 -o ea.nc
    OPENBLAS_NUM_THREADS=1 python tests/benchmarks/report.py ea.nc --output docs/records

Writes one page. Memory is the largest resident size of the process up to the end of each step,
the libraries included; the fit is read piece by piece.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from pathlib import Path


def megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("fit", type=Path)
    parser.add_argument("--output", type=Path, default=Path("docs/records"))
    given = parser.parse_args()

    begun, cpu = time.perf_counter(), time.process_time()
    import spatialclusters as sc
    from spatialclusters.reporting import make_report, save_report

    fit = sc.load_fit(given.fit, lazy=True)
    rows = [("imports, reading the fit", time.perf_counter() - begun, megabytes())]

    def tell(step, seconds):
        if seconds is not None:
            rows.append((step, seconds, megabytes()))

    with tempfile.TemporaryDirectory() as folder:
        page, numbers = Path(folder) / "report.html", Path(folder) / "report.json"
        report = make_report(fit, progress=tell)
        start = time.perf_counter()
        save_report(report, page, numbers)
        rows.append(
            ("writing the page and the JSON file", time.perf_counter() - start, megabytes())
        )
        sizes = [each.stat().st_size / 1e6 for each in (page, numbers)]
    wall, cpu = time.perf_counter() - begun, time.process_time() - cpu
    levels = ", ".join(f"{g.name} {len(g.levels):,}" for g in fit.design.groups)
    draws = fit.posterior.sizes["chain"] * fit.posterior.sizes["draw"]
    small = [row for row in rows if row[1] < 0.5]
    lines = [f"| {step} | {seconds:.1f} | {peak:,.0f} |" for step, seconds, peak in rows
             if seconds >= 0.5]  # fmt: skip
    lines.append(f"| {len(small)} other steps together | {sum(row[1] for row in small):.1f} | |")
    text = f"""# Report of a fit of {fit.design.n_rows:,} rows

`OPENBLAS_NUM_THREADS=1 python tests/benchmarks/report.py {given.fit.name}`

Model `{fit.spec.name}`; levels {levels}; {draws:,} draws; a file of
{given.fit.stat().st_size / 1e6:,.0f} MB. **{wall:.0f} s of wall time, {cpu:.0f} s of CPU time on one of
{os.cpu_count()} cores, {megabytes():,.0f} MB at most**, the libraries among them. The page has
{sizes[0]:.1f} MB, the JSON file {sizes[1]:.1f} MB.

| step | seconds | MB at most so far |
|---|---|---|
{chr(10).join(lines)}
"""
    given.output.mkdir(parents=True, exist_ok=True)
    (given.output / "report.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
