"""The report is one page that asks for nothing, hides nothing, and says what the frames say."""

import math
import re

import numpy as np
import pytest
import xarray as xr

from spatialclusters import reporting
from spatialclusters.effects import coefficients, convergence, group_effects, specialization
from spatialclusters.errors import FitError
from spatialclusters.frequentist import fit_frequentist
from spatialclusters.processes import dependence_names
from spatialclusters.rankings import rank_levels
from spatialclusters.reporting import build, write_report
from spatialclusters.reporting.results import Results
from spatialclusters.result import Fit
from spatialclusters.spillovers import impacts
from tests.pages import Page, drawings, number, part

SECTIONS = (
    "coefficients", "convergence", "specialization", "impacts", "groups", "regions", "checks", "fit",
    "ladder", "frequentist", "sensitivity", "data", "weights", "model", "priors", "computation",
    "reproduction", "guidelines",
)  # fmt: skip
VARIANTS = ("clusters", "student", "noise by cluster", "fixed", "regions", "plain")
STRUCTURES = {
    "iid": "none: independent", "icar": "ICAR", "car": "proper CAR", "leroux": "Leroux",
    "bym2": "BYM2", "sar": "SAR",
}  # fmt: skip
EVIL = (
    "<script>alert(1)</script>", "长三角产业集群 $x_1$", "_" + "y" * 299, "\"><img src=x onerror=a>",
    "{{ 7*7 }}", "a\u202eb", "C6", "C7", "C8",
)  # fmt: skip


@pytest.fixture(scope="module")
def written(synthetic_fit, tmp_path_factory):
    """Write the report of a variant once, and return its text."""
    folder, done = tmp_path_factory.mktemp("reports"), {}

    def write(variant, **how):
        key = (variant, *sorted(how.items()))
        if key not in done:
            path = folder / f"{len(done)}.html"
            assert write_report(synthetic_fit(variant, **how), path=path) == path
            done[key] = path.read_text("utf-8")
        return done[key]

    return write


@pytest.fixture(scope="module")
def text(written):
    return written("clusters", geometry=True)


@pytest.fixture(scope="module")
def evil(written):
    return written("clusters", labels=EVIL)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_kind_of_model_has_every_section(written, variant):
    spatial = variant != "plain"
    text = written(variant, weights=spatial)
    page = Page(text)
    assert page.ids == ["contents", "headline", *SECTIONS]
    assert len(text) < 3e6
    assert all(image["alt"].strip() for image in page.images())
    assert len(page.images()) >= 7
    links = [attrs["href"] for tag, attrs in page.tags if tag == "a"]
    assert links[: len(SECTIONS)] == [f"#{name}" for name in SECTIONS]
    assert {link.removeprefix("#") for link in links} <= set(page.ids)
    assert "nan" not in re.findall(r"[a-z]+", page.spoken.lower())
    assert ("without spatial weights" in page.spoken) == (not spatial)


def test_the_page_asks_for_nothing(text, evil):
    for each in (text, evil):
        page = Page(each)
        assert not {"script", "link", "iframe", "object", "form", "base"} & {
            t for t, _ in page.tags
        }
        for _, attrs in page.tags:
            assert not [name for name in attrs if name.startswith("on")]
            for name in ("src", "href", "srcset", "data", "action"):
                assert attrs.get(name, "#").startswith(("#", "data:image/"))
        for source in (each, *drawings(page)):
            assert "@import" not in source
            assert not re.search(r"url\((?!#)", source)
            assert not re.search(r'(?:src|href)="(?!#|data:image/)', source)
        assert "default-src 'none'" in each


def test_labels_are_escaped_and_legible(evil):
    page = Page(evil)
    assert "<script" not in evil.lower()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in evil
    assert "onerror" not in {name for _, attrs in page.tags for name in attrs}
    cells = {row[0] for rows in page.tables.values() for row in rows}
    assert {label.replace("\u202e", "") for label in EVIL} <= cells
    assert "\u202e" not in evil
    forest = next(svg for svg in drawings(page) if "speed" in svg)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in forest
    assert "长三角产业集群 $x_1$" in forest
    assert "y" * 299 not in forest
    assert all("<script" not in svg for svg in drawings(page))


def test_the_same_fit_gives_the_same_bytes(synthetic_fit, tmp_path, text):
    fit = synthetic_fit("clusters", geometry=True)
    again = Fit(fit.tree.copy(deep=True))
    path = write_report(again, fit_frequentist(again), path=tmp_path / "again.html")
    assert path.read_bytes() == text.encode()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["again.html"]


@pytest.mark.parametrize("variant", ["clusters", "plain"])
def test_a_failed_verdict_is_in_the_headline(written, variant):
    good = part(written(variant, weights=variant != "plain"), "headline")
    assert "Do not report" not in good
    assert "The sampling converged: all" in good
    bad = part(written(variant, sick=True), "headline")
    assert "Do not report these numbers." in bad
    assert "sigma" in bad
    assert "The sampling converged" not in bad
    assert "FAILED" in part(written(variant, sick=True), "computation")


def test_numbers_are_those_of_the_frames(synthetic_fit, text):
    fit, page = synthetic_fit("clusters", geometry=True), Page(text)
    frame = coefficients(fit)
    rows = [row for start in ("Coefficients in", "Dummies of zeros", "How much levels")
            for row in page.table(start)[1:]]  # fmt: skip
    by_name = {row[0]: row[1:] for row in rows}
    assert len(by_name) == len(frame)
    for each in frame.itertuples():
        name = f"{each.term}: {each.group}" if each.group else each.term
        estimate, sd, ends, chance, ess, r_hat = by_name[name]
        decimals = len(sd.partition(".")[2])
        assert 10.0**-decimals <= each.std_error  # two digits of the sd, at least
        shown = [number(cell) for cell in (estimate, sd, *ends.strip("[]").split(", "))]
        exact = (each.estimate, each.std_error, each.ci_low, each.ci_high)
        assert shown == pytest.approx(exact, abs=0.5000001 * 10.0**-decimals)
        assert (chance == "—") == (each.effect == "sd")
        assert number(ess) == pytest.approx(min(each.ess_bulk, each.ess_tail), abs=0.51)
        assert number(r_hat) == pytest.approx(each.r_hat, abs=0.00051)
    errors = {row[0]: row[1:] for row in page.table("Monte Carlo error")[1:]}
    for each in frame.itertuples():
        name = f"{each.term}: {each.group}" if each.group else each.term
        mcse, share, bulk, tail, _, verdict = errors[name]
        assert number(mcse) == pytest.approx(each.mcse, rel=0.06)
        assert number(share) == pytest.approx(100.0 * each.mcse / each.std_error, abs=0.051)
        assert [number(bulk), number(tail)] == pytest.approx(
            [each.ess_bulk, each.ess_tail], abs=0.51
        )
        assert verdict == each.verdict


def test_the_headline_is_convergence_in_points_a_year(synthetic_fit, text):
    fit, box = synthetic_fit("clusters", geometry=True), Page(part(text, "headline")).spoken
    frame = convergence(fit).query("group == 'overall'").set_index("effect")
    change = -100.0 * math.log(1.1) / 3.0 * frame["estimate"]["change"]
    found = re.search(
        r"with 10 % more cluster_level in 2018 grew by ([\d.]+) points a year less "
        r"\[([\d.]+), ([\d.]+)\]. The gap halves in ([\d.]+) years", box)  # fmt: skip
    assert float(found[1]) == pytest.approx(change, rel=0.02)
    assert float(found[2]) < float(found[1]) < float(found[3])
    assert float(found[4]) == pytest.approx(frame["estimate"]["half_life"], rel=0.05)
    per_sd = specialization(fit).query("group == 'overall' and effect == 'per_sd'")["estimate"]
    found = re.search(r"log\(neighbor_strength\) goes with ([\d.]+) points of annual growth", box)
    assert float(found[1]) == pytest.approx(per_sd.item(), rel=0.02)
    assert "log(cluster_level) negative (probability > 0.999)" in box


def test_tables_by_group_hold_every_group(synthetic_fit, text):
    fit, page = synthetic_fit("clusters", geometry=True), Page(text)
    by_cluster = page.table("Convergence by group")[1:]
    expected = convergence(fit).query("effect == 'change' and group != 'overall'")
    assert [row[0] for row in by_cluster] == expected["group"].tolist()
    assert [number(row[1]) for row in by_cluster] == pytest.approx(
        expected["estimate"].tolist(), abs=6e-4
    )
    by_region = page.table("The region effect by region")[1:]
    effects = group_effects(fit, "region").sort_values("estimate", ascending=False)
    assert [row[0] for row in by_region] == effects["group"].tolist()
    assert [number(row[1]) for row in by_region] == pytest.approx(
        effects["estimate"].tolist(), abs=6e-4
    )
    ranks = page.table("Ranks of regions")[1:]
    expected = rank_levels(fit, "region")
    assert [row[0] for row in ranks] == expected["group"].tolist()
    assert [number(row[1]) for row in ranks] == pytest.approx(expected["rank"].tolist(), abs=0.051)


def test_the_regressions_stand_beside_the_posterior(synthetic_fit, text):
    fit, page = synthetic_fit("clusters", geometry=True), Page(text)
    frequentist = fit_frequentist(fit)
    rows = page.table("Estimates on the same rows")[1:]
    known = frequentist.estimates.query("effect == 'coefficient'").set_index(["term", "estimator"])
    for term in ("log(cluster_level)", "log(neighbor_strength)"):
        mine = {row[1]: row for row in rows if row[0] == term}
        assert list(mine) == ["posterior", "fixed effects", "OLS"]
        for name in ("fixed effects", "OLS"):
            estimate, error = known.loc[(term, name), ["estimate", "std_error"]]
            assert number(mine[name][2]) == pytest.approx(estimate, abs=6e-4)
            gap = (number(mine["posterior"][2]) - estimate) / error
            assert number(mine[name][5]) == pytest.approx(gap, abs=0.2)
    assert all(note in page.spoken for note in frequentist.notes)
    assert "Moran's I of the OLS residuals" in page.spoken


def test_gaps_in_the_data_are_counted(text):
    page = Page(text)
    assert page.table("Cells by year")[1] == [
        "2018", "108", "105", "97.2 %", "0", "0.0 %", "1", "0.9 %", "2", "1.9 %",
    ]  # fmt: skip
    assert "an absent cell counts as zero" in page.spoken
    assert "a withheld cell counts as zero" in page.spoken
    assert ["employment absent in 2018", "2"] in page.table("Cells that are not rows")
    assert ["employment withheld in 2018", "1"] in page.table("Cells that are not rows")


def test_simulated_data_are_labeled_at_the_top(written):
    label = "SIMULATED DATA."
    assert label not in written("regions")
    labeled = Page(written("regions", simulated=True)).spoken
    assert labeled.index(label) < labeled.index("In short")


def test_regions_are_a_map_where_there_is_geometry(written, text):
    assert 'src="data:image/png' in part(text, "regions")
    without = part(written("clusters"), "regions")
    assert "--regions FILE" in without
    assert "data:image/png" not in without
    assert "data:image/png" in part(written("regions", geometry=True), "regions")


def test_a_fit_can_be_repeated_from_the_page(synthetic_fit, text):
    fit, page = synthetic_fit("clusters", geometry=True), Page(text)
    again = part(text, "reproduction")
    for words in ("spatialclusters fit synthetic.toml \\\n  --data", "--seed 7", "--weights queen",
                  "--draws 500", fit.spec.digest, "cites no works"):  # fmt: skip
        assert words in again
    assert fit.tree.attrs["model"] in page.spoken
    priors = {row[0]: row[3] for row in page.table("Priors")[1:]}
    assert "points of annual growth" in priors["log(cluster_level)"]


def spatial(fit, outcome, structure="iid"):
    """Give a made-up fit a process of the outcome, and its regions a structure."""
    tree, rng = fit.tree.copy(deep=True), np.random.default_rng(8)
    for attrs, name in ((tree.attrs, "model"), (tree["constant_data"].attrs, "groups")):
        for old in ('structure = "iid"', '"structure": "iid"'):  # the first is the region's
            attrs[name] = attrs[name].replace(old, old.replace("iid", structure), 1)
    tree.attrs["model"] = tree.attrs["model"].replace('outcome = "none"', f'outcome = "{outcome}"')
    changed = Fit(tree)
    for name in dependence_names(changed.spec):
        draws = rng.normal(0.4, 0.03, (4, 500))
        tree["posterior"][name] = xr.DataArray(draws, dims=("chain", "draw"))
    return changed


@pytest.fixture(scope="module")
def lagged(synthetic_fit, tmp_path_factory):
    """Fits with spatial processes and their pages."""
    folder, made = tmp_path_factory.mktemp("lagged"), {}
    for variant, outcome, structure in (("clusters", "sar", "bym2"), ("plain", "sac", "iid"),
                                        ("plain", "sem", "iid")):  # fmt: skip
        fit = spatial(synthetic_fit(variant, geometry=True), outcome, structure)
        page = write_report(fit, path=folder / f"{len(made)}.html").read_text("utf-8")
        made[variant, outcome] = fit, page
    return made


def test_impacts_are_a_section_where_there_are_lags(lagged):
    for (_, outcome), (_, page) in lagged.items():
        assert ("The direct impact is what" in page) == (outcome != "sem")
        assert ("nothing in the model passes from one row" in page) == (outcome == "sem")
        assert all(image["alt"].strip() for image in Page(page).images())
    fit, page = lagged["clusters", "sar"]
    section, frame = part(page, "impacts"), impacts(fit)
    assert (
        "direct impact is what one unit more of a covariate in one region-cluster does" in section
    )
    assert "draw by draw" in section
    assert section.count("<img") == 3  # impacts, decay, map
    rows = Page(page).table("Impacts, in log change")
    assert rows[0] == ["term", "direct", "95 % interval", "indirect", "95 % interval", "total",
                       "95 % interval", "P(indirect > 0)", "verdict"]  # fmt: skip
    shown = [number(row[k]) for row in rows[1:] for k in (1, 3, 5)]
    assert shown == pytest.approx(frame["estimate"].tolist(), abs=6e-4)
    assert "section Impacts" in part(page, "coefficients")


def test_convergence_is_direct_and_common(lagged):
    fit, page = lagged["clusters", "sar"]
    frame = convergence(fit).query("effect == 'change'").set_index("group")["estimate"]
    text = Page(page).spoken
    rows = {row[0]: number(row[2]) for row in Page(page).table("Convergence overall")[1:]}
    assert rows["log(cluster_level): total change"] == pytest.approx(frame["overall"], abs=6e-4)
    name = "log(cluster_level): total change, if all are higher"
    assert rows[name] == pytest.approx(frame["common"], abs=6e-4)
    assert "it matters who is higher" in part(page, "convergence")
    groups = [row[0] for row in Page(page).table("Convergence by group")[1:]]
    assert groups == [f"Cluster {k}" for k in range(1, 10)]
    found = re.search(
        r"A region-cluster that alone had 10 % more cluster_level in 2018 grew by ([\d.]+) points a "
        r"year less \[[\d., ]+\]. Where all had it, each grew by ([\d.]+) points", text)  # fmt: skip
    factor = -100.0 * math.log(1.1) / 3.0
    assert float(found[1]) == pytest.approx(factor * frame["overall"], abs=6e-4)
    assert float(found[2]) == pytest.approx(factor * frame["common"], abs=6e-4)
    assert "Where all have it, it goes with" in part(page, "headline")


def test_the_headline_of_a_model_without_roles_is_its_impacts(lagged):
    fit, page = lagged["plain", "sac"]
    frame = impacts(fit).set_index(["term", "effect"])["estimate"]
    found = re.search(r"One unit more distance in one region goes with ([\d.]+) crime more \[.*?\] "
                      r"there, and ([\d.]+) crime more",
                      Page(part(page, "headline")).spoken)  # fmt: skip
    assert float(found[1]) == pytest.approx(frame["distance", "direct"], abs=6e-4)
    assert float(found[2]) == pytest.approx(frame["distance", "indirect"], abs=6e-4)
    plain = part(lagged["plain", "sem"][1], "headline")
    assert "One unit more distance goes with" in plain


def test_parameters_of_dependence_are_named(lagged):
    names = [row[0] for row in Page(lagged["clusters", "sar"][1]).table("How much levels")]
    assert "rho: factor of the neighbors' response" in names
    assert "phi(region): share of the variance that neighbors share" in names
    names = [row[0] for row in Page(lagged["plain", "sac"][1]).table("How much levels")]
    assert "lambda: factor of the neighbors' noise" in names


def test_residuals_are_the_noise_of_the_process(lagged):
    fit, page = lagged["plain", "sac"]
    L, y = fit.design.lag.matrix.toarray(), fit.design.y
    rho, lam = (fit.draws(name)[..., None] for name in ("rho", "lambda"))
    mean = fit.draws("intercept")[..., None]
    mean = mean + fit.draws("coefficient") @ (fit.design.X - fit.design.X.mean(axis=0)).T
    error = y - rho * (L @ y) - mean
    noise = error - lam * (error @ L.T)
    rows = {row[0]: number(row[1]) for row in Page(page).table("The residual by region")[1:]}
    found = [rows[region] for region in fit.design.data["row_region"].values]
    assert found == pytest.approx(noise.mean(axis=(0, 1)), abs=6e-3)


@pytest.mark.parametrize(
    ("outcome", "structure", "equations", "told"),
    [
        ("sar", "icar", ["growthn = ρ lag(growth)n + α", "bregion ~ N(0, τ²region K+/κ)",
                         "effects sum to zero", "εn ~ N(0, σ²"], "ρ is rho, between −1 and 1"),
        ("sem", "car", ["growthn = α", "εn = λ lag(ε)n + un", "un ~ N(0, σ²",
                        "[D − αregion A]−1/κ)", "αregion is alpha(region)"], "λ is lambda, between"),
        ("sac", "sar", ["ρ lag(growth)n", "λ lag(ε)n", "(I − λregion D−1A)",
                        "λregion is lambda(region)"], "ρ is rho and λ is lambda, between"),
        ("none", "leroux", ["growthn = α", "[(1 − αregion) I + αregion K]−1/κ)"], "K = D − A"),
        ("none", "bym2", ["[(1 − φregion) I + φregion K+/κ]", "φregion is phi(region)"], "K = D − A"),
        ("none", "iid", ["growthn = α", "bregion ~ N(0, τ²region)"], None),
    ],
)  # fmt: skip
def test_the_model_section_states_the_process(synthetic_fit, outcome, structure, equations, told):
    from spatialclusters.reporting.sections import model_section, weights_section

    results = Results(spatial(synthetic_fit("clusters"), outcome, structure), None)
    blocks = model_section(results).blocks
    lines = [
        re.sub("<[^>]*>", "", str(b.text)) for b in blocks if getattr(b, "tone", "") == "equation"
    ]
    for expected in equations:
        assert any(expected in line for line in lines), (expected, lines)
    text = " ".join(str(b.text) for b in blocks if getattr(b, "tone", "") == "plain")
    assert told in text if told else "neighbor" not in text
    assert ("less rho times" in text) == (outcome in ("sar", "sac"))
    groups = next(b for b in blocks if getattr(b, "caption", "") == "Groups")
    assert groups.rows[0][groups.columns.index("spatial structure")] == STRUCTURES[structure]
    said = " ".join(str(b.text) for b in weights_section(results).blocks if b.kind == "paragraph")
    assert ("lag() connects 105 region-clusters in 9 connected" in said) == (outcome != "none")


def test_works_that_are_not_in_the_bibliography_do_not_stop_the_report(
    synthetic_fit, monkeypatch, tmp_path
):
    from spatialclusters.errors import SpecError
    from spatialclusters.reporting.sections import reproduction

    def refuse(spec):
        raise SpecError("cite: got 'Nobody1900'")

    monkeypatch.setattr(reproduction, "citation", refuse)
    path = write_report(synthetic_fit("plain", weights=False), path=tmp_path / "report.html")
    assert "cite: got &#39;Nobody1900&#39;" in path.read_text("utf-8")


def test_nothing_is_written_unless_all_of_it_is(synthetic_fit, tmp_path, monkeypatch):
    fit, path = synthetic_fit("plain", weights=False), tmp_path / "report.html"
    path.write_text("before")
    with pytest.raises(FitError, match="other rows"):
        write_report(fit, fit_frequentist(synthetic_fit("regions")), path=path)
    with pytest.raises(FitError, match="cannot be written"):
        write_report(fit, path=tmp_path / "missing" / "report.html")

    def fail(*_):
        raise OSError("no space")

    monkeypatch.setattr(build, "replace_file", fail)
    with pytest.raises(FitError, match="no space"):
        write_report(fit, path=path)
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"]
    assert path.read_text() == "before"


def test_only_the_style_sheet_is_taken_as_it_is():
    folder = build.files(reporting.__name__)
    template = (folder / "template.html").read_text("utf-8")
    assert "|safe" not in template.replace(" ", "")
    assert "autoescape" not in template
