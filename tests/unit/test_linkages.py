"""Linkage tables: whose strength counts for whom, and what is refused."""

import numpy as np
import pandas as pd
import pytest

from spatialclusters.errors import PanelError
from spatialclusters.linkages import read_linkages

CLUSTERS = ["coal", "steel", "cars"]


def table(*links, columns=("cluster", "linked_cluster", "weight")):
    return pd.DataFrame(links, columns=list(columns[: len(links[0])]))


def matrix(source, clusters=CLUSTERS, **options):
    return read_linkages(source, clusters, **options)


def links(found):
    """The links as a plain dict."""
    return {
        (c, k): float(found.values[i, j])
        for i, c in enumerate(found["cluster"].values)
        for j, k in enumerate(found["linked_cluster"].values)
        if found.values[i, j] != 0.0
    }


def test_links_have_a_direction():
    found = matrix(table(("steel", "coal", 3.0), ("cars", "steel", 1.0), ("steel", "cars", 2.0)))
    assert found.dims == ("cluster", "linked_cluster")
    assert found["cluster"].values.tolist() == CLUSTERS
    assert found["linked_cluster"].values.tolist() == CLUSTERS
    assert links(found) == {("steel", "coal"): 3.0, ("cars", "steel"): 1.0, ("steel", "cars"): 2.0}
    assert found.attrs["links"] == 3
    assert found.attrs["unlinked"] == ["coal"]
    assert found.attrs["outside"] == 0


def test_the_order_of_rows_and_of_clusters_does_not_matter():
    rows = [("steel", "coal", 3.0), ("cars", "steel", 1.0), ("coal", "cars", 2.0)]
    first, second = matrix(table(*rows)), matrix(table(*rows[::-1]), CLUSTERS[::-1])
    assert links(first) == links(second)
    assert second["cluster"].values.tolist() == CLUSTERS[::-1]


def test_without_weights_every_link_counts_one():
    found = matrix(table(("steel", "coal"), ("cars", "steel")))
    assert links(found) == {("steel", "coal"): 1.0, ("cars", "steel"): 1.0}


def test_text_strengths_count_only_through_a_map():
    rows = [("steel", "coal", "strong"), ("cars", "steel", "lower")]
    source = table(*rows, columns=("cluster", "linked_cluster", "strength"))
    assert set(links(matrix(source)).values()) == {1.0}
    found = matrix(source, strengths={"strong": 2, "lower": 0.5, "unused": 9})
    assert links(found) == {("steel", "coal"): 2.0, ("cars", "steel"): 0.5}


def test_a_map_of_strengths_goes_before_weights():
    source = table(("steel", "coal", 7.0)).assign(strength="strong")
    assert links(matrix(source)) == {("steel", "coal"): 7.0}
    assert links(matrix(source, strengths={"strong": 2.0})) == {("steel", "coal"): 2.0}


def test_links_to_clusters_that_the_panel_lacks_are_counted():
    rows = [("steel", "coal", 1.0), ("steel", "ships", 1.0), ("ships", "steel", 1.0)]
    found = matrix(table(*rows, ("ships", "boats", 1.0)))
    assert links(found) == {("steel", "coal"): 1.0}
    assert found.attrs["outside"] == 3


def test_a_link_to_itself_is_ignored_and_not_counted_as_outside():
    found = matrix(table(("steel", "steel", 5.0), ("steel", "coal", 1.0)))
    assert links(found) == {("steel", "coal"): 1.0}
    assert (np.diag(found.values) == 0.0).all()
    assert found.attrs["outside"] == 0


def test_a_weight_of_zero_is_no_link():
    found = matrix(table(("steel", "coal", 0.0)))
    assert found.attrs["links"] == 0
    assert found.attrs["unlinked"] == CLUSTERS


def test_files_and_frames_give_the_same(tmp_path):
    source = table(("steel", "coal", 3.0), ("cars", "steel", 1.0))
    source.to_csv(tmp_path / "links.csv", index=False)
    source.to_parquet(tmp_path / "links.parquet")
    expected = {("steel", "coal"): 3.0, ("cars", "steel"): 1.0}
    digests = set()
    for given in (source, tmp_path / "links.csv", str(tmp_path / "links.parquet")):
        found = matrix(given)
        assert links(found) == expected
        digests.add(found.attrs["digest"])
    assert found.attrs["source"] == "links.parquet"
    changed = matrix(table(("steel", "coal", 3.0), ("cars", "steel", 2.0)))
    assert changed.attrs["digest"] not in digests


def test_a_cluster_called_na_and_labels_that_look_like_numbers(tmp_path):
    path = tmp_path / "links.csv"
    path.write_text("cluster,linked_cluster,weight\nNA,01,2\n01,1,3\n")
    found = matrix(path, ["NA", "01", "1"])
    assert links(found) == {("NA", "01"): 2.0, ("01", "1"): 3.0}


def test_huge_and_odd_labels():
    labels = ["x" * 10**6, "<script>", "長", "a\nb"]
    rows = [(c, k, 1.0) for c in labels for k in labels if c != k]
    found = matrix(table(*rows), labels)
    assert found.nbytes + found["cluster"].nbytes < 1e6  # labels are not padded to the longest
    assert found.attrs["links"] == 12
    with pytest.raises(PanelError) as caught:
        matrix(table(*rows, *rows), labels)
    assert len(str(caught.value)) < 5_000


@pytest.mark.parametrize(
    ("source", "options", "parts"),
    [
        (table(("a", "b"), ("a", "b")), {}, ["1 links twice", "a -> b"]),
        (table(("a", "b", 1.0), ("a", "b", 2.0)), {}, ["1 links twice", "a -> b"]),
        (table(("a", "b", 1.0), ("b", "a", -1.0)), {}, ["negative", "'1'"]),
        (table(("a", "b", np.nan), ("b", "a", np.inf)), {}, ["'0', '1'"]),
        (table(("a", "b", "strong")), {}, ["text in column 'weight'", "`strengths`"]),
        (table(("a", "b", 1.0)), {"strengths": {"x": 1}}, ["no column 'strength'"]),
        (
            table(("a", "b", "huge"), columns=("cluster", "linked_cluster", "strength")),
            {"strengths": {"strong": 1}},
            ["without a number", "'huge'"],
        ),
        (
            table(("a", "b", "bad"), columns=("cluster", "linked_cluster", "strength")),
            {"strengths": {"bad": -1}},
            ["negative", "'0'"],
        ),
        (
            table(("a", "b", "bad"), columns=("cluster", "linked_cluster", "strength")),
            {"strengths": {"bad": float("inf")}},
            ["infinite", "'0'"],
        ),
        (
            table(("a", "b"), columns=("cluster", "linked")),
            {},
            ["'linked_cluster'", "Did you mean 'linked'?"],
        ),
        (table(("a", "b"), columns=("from", "linked_cluster")), {}, ["'cluster'"]),
    ],
)
def test_refused(source, options, parts):
    with pytest.raises(PanelError) as caught:
        matrix(source, ["a", "b"], **options)
    for part in parts:
        assert part in str(caught.value), (part, str(caught.value))


def test_a_missing_file(tmp_path):
    with pytest.raises(PanelError, match="no such file"):
        matrix(tmp_path / "nothing.csv")


def test_real_links(data_folder):
    path = data_folder / "concordance" / "linked_clusters.csv"
    text = pd.read_csv(path)
    clusters = pd.read_parquet(data_folder / "us_ea" / "clusters_2018_2021.parquet")["cluster"]
    labels = sorted(clusters.unique())
    found = matrix(path, labels)
    rows = text.itertuples(index=False)
    expected = {(row.cluster, row.linked_cluster): float(row.weight) for row in rows}
    assert links(found) == expected
    assert len(expected) == 203
    both = sum((k, c) in expected for c, k in expected)
    assert both == 178  # the data README's number
    never = {"Tobacco", "Metal Mining", "Coal Mining"}
    assert never <= set(found.attrs["unlinked"])
    named = matrix(path, labels, strengths={"very strong": 3, "strong": 2, "lower": 1})
    np.testing.assert_array_equal(named, found)
