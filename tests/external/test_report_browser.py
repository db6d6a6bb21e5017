"""Reports in a real browser: everything is drawn, nothing is asked for, nothing sticks out."""

import json
import re
import shutil
import subprocess

import pytest

import spatialclusters as sc
from spatialclusters.demo import run_demo
from tests.unit.test_report import EVIL, SECTIONS

pytestmark = pytest.mark.external

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDTHS = (400, 900, 1440)  # a phone, a tablet, a screen with contents beside the text
HARNESS = """<!DOCTYPE html><meta charset="utf-8"><body><pre id="out"></pre><script>
const widths = %s, out = [];
function blank(image) {
  const canvas = document.createElement("canvas"), pen = canvas.getContext("2d");
  canvas.width = canvas.height = 200;
  pen.drawImage(image, 0, 0, 200, 200);
  const shades = new Set(pen.getImageData(0, 0, 200, 200).data);
  return shades.size < 10;
}
async function look(width) {
  const frame = document.createElement("iframe");
  frame.style.width = width + "px"; frame.style.height = "900px"; frame.src = "report.html";
  document.body.append(frame);
  await new Promise(done => frame.onload = done);
  const page = frame.contentDocument, images = [...page.images];
  out.push({
    width, ids: [...page.querySelectorAll("[id]")].map(each => each.id),
    images: images.length,
    undrawn: images.filter(image => !image.complete || !image.naturalWidth || blank(image)).length,
    requests: frame.contentWindow.performance.getEntriesByType("resource").length,
    scripts: page.scripts.length,
    over: page.documentElement.scrollWidth - page.documentElement.clientWidth,
    text: page.body.innerText.length,
    closed: [...page.querySelectorAll("details")].filter(each => !each.open).length,
  });
}
(async () => {
  for (const width of widths) await look(width);
  document.getElementById("out").textContent = JSON.stringify(out);
})();
</script>"""


def find_browser():
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    return browser


def browse(folder, *words):
    always = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    always += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'profile'}"]
    always += ["--virtual-time-budget=600000", "--enable-logging=stderr"]
    return subprocess.run(
        [find_browser(), *always, *words], cwd=folder, capture_output=True, text=True, check=False,
        timeout=300,
    )  # fmt: skip


MADE_UP = {
    "usual": ("clusters", {"geometry": True, "simulated": True}),
    "hostile": ("clusters", {"labels": EVIL}),
    "plain": ("plain", {"weights": False}),
}
DEMO = ("us_income", "simulated_economy")
# model, table; what a page looks like does not depend on how long the chains are
REAL = {
    "US clusters": ("cluster_growth", "clusters_2018_2021.parquet"),
    "US industries": ("employment_growth", "industries_2018_2021.parquet"),
}
SHORT = {"chains": 2, "tune": 100, "draws": 200, "seed": 20261126, "progress": False}


def real_fit(data, name):
    model, table = REAL[name]
    panel = sc.read_panel(data / "us_ea" / table, data / "us_ea" / "boundaries.geojson")
    weights = sc.read_weights(data / "us_ea" / "queen.parquet")
    linkages = data / "concordance" / "linked_clusters.csv"
    return sc.fit(sc.load_model(model), panel, weights, linkages=linkages, **SHORT)


def report_on(request, kind, folder):
    """Write a report of a kind, and return where it is."""
    page = folder / "report.html"
    if kind in DEMO:
        shutil.copy(request.getfixturevalue("demo_folder") / f"{kind}.html", page)
    elif kind in REAL:
        sc.write_report(real_fit(request.getfixturevalue("data_folder"), kind), path=page)
    else:
        variant, more = MADE_UP[kind]
        sc.write_report(request.getfixturevalue("synthetic_fit")(variant, **more), path=page)


@pytest.fixture(scope="module")
def demo_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "demo"
    run_demo(
        folder, chains=SHORT["chains"], tune=SHORT["tune"], draws=SHORT["draws"], progress=False
    )
    return folder


LONG = [pytest.param(kind, marks=pytest.mark.slow) for kind in (*DEMO, *REAL)]


@pytest.fixture(scope="module", params=[*MADE_UP, *LONG])
def page(request, tmp_path_factory):
    """A folder with a report of each kind."""
    find_browser()
    folder = tmp_path_factory.mktemp("page")
    report_on(request, request.param, folder)
    return folder


def test_everything_is_drawn_and_nothing_is_asked_for(page):
    (page / "look.html").write_text(HARNESS % json.dumps(WIDTHS), encoding="utf-8")
    done = browse(page, "--dump-dom", (page / "look.html").as_uri())
    found = re.search(r'<pre id="out">(.+?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    for seen in json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">")):
        assert seen["ids"] == ["contents", "headline", *SECTIONS]
        assert seen["images"] >= 7
        assert seen["undrawn"] == seen["requests"] == seen["scripts"] == 0
        assert seen["over"] <= 0, seen["width"]  # tables scroll by themselves
        assert seen["text"] > 10_000
        assert seen["closed"] >= 4  # long tables are folded
    assert "CONSOLE" not in done.stderr


def test_it_prints(page):
    target = page / "report.pdf"
    browse(
        page, "--no-pdf-header-footer", f"--print-to-pdf={target}", (page / "report.html").as_uri()
    )
    content = target.read_bytes()
    assert content.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", content)) >= 5
