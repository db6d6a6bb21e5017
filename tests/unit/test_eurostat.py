"""Eurostat's TSV files, as hand-made ones with flags of both vocabularies."""

import gzip
import math

import pytest

from spatialclusters.errors import PanelError
from spatialclusters.sources import leaves, normalized_flags, read_eurostat

NEW = "freq,nace_r2,indic_sbs,geo\\TIME_PERIOD\t2021 \t2022 "
OLD = "indic_sb,nace_r2,geo\\time\t2020 \t2019 "


def saved(folder, *lines, head=NEW, name="sbs.tsv"):
    path = folder / name
    path.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
    return path


def refused(path, **options):
    with pytest.raises(PanelError) as caught:
        read_eurostat(path, **({"nuts_year": 2021} | options))
    assert 0 < len(str(caught.value)) < 2_000
    return str(caught.value)


def series(nace, geo, *cells, indicator="EMP_LOC_NR"):
    return "\t".join([f"A,{nace},{indicator},{geo}", *cells])


def test_values_and_flags_of_one_indicator(tmp_path):
    path = saved(
        tmp_path,
        series("C10", "AT11", "1234 ", "1250.5 b"),
        series("C10", "AT12", ": C", ": "),
        series("C11", "AT11", "0 n", "7 bC"),
        series("C11", "AT12", ": c", "7e2 bu"),
        series("C11", "AT1", "9 ", "9 "),
        series("C11", "AT12", "3 ", "3 ", indicator="LOC_NR"),
    )
    cells = read_eurostat(path, nuts_year=2021, where={"indic_sbs": "EMP_LOC_NR"})
    found = {
        (region, industry, year): rest
        for region, industry, year, *rest in cells.frame.select(
            "region", "industry", "year", "value", "lower", "upper", "flag_raw"
        ).rows()
    }
    assert found == {
        ("AT11", "C10", 2021): [1234.0, 1234.0, 1234.0, ""],
        ("AT11", "C10", 2022): [1250.5, 1250.5, 1250.5, "b"],
        ("AT12", "C10", 2021): [None, 0.0, math.inf, "C"],
        ("AT12", "C10", 2022): [None, 0.0, math.inf, ""],
        ("AT11", "C11", 2021): [0.0, 0.0, 0.5, "n"],
        ("AT11", "C11", 2022): [None, 0.0, math.inf, "bC"],
        ("AT12", "C11", 2021): [None, 0.0, math.inf, "c"],
        ("AT12", "C11", 2022): [700.0, 700.0, 700.0, "bu"],
    }
    assert cells.origins[0].classification == "NACE Rev. 2"


def test_the_old_layout_descends_and_is_packed(tmp_path):
    content = (
        f"{OLD}\nV16110,C10,AT11\t5 s\t4\nV16110,C,AT11\t9 \t8 z\nV16110,B-N_X_K,AT11\t9 \t8\n"
    )
    path = tmp_path / "old.tsv.gz"
    path.write_bytes(gzip.compress(content.encode()))
    cells = read_eurostat(path, nuts_year=2016)
    assert dict(cells.frame.filter(industry="C10").select("year", "value").rows()) == {
        2020: 5.0,
        2019: 4.0,
    }
    # the section and the aggregate hold the same jobs
    assert leaves(cells).frame["industry"].to_list() == ["C10", "C10"]


@pytest.mark.parametrize(
    ("raw", "flags"),
    [
        ("", ""),
        ("bu", "bu"),
        ("c", "C"),
        ("b C", "bC"),
        ("b,C", "bC"),
        ("s", "i"),
        ("z", "m"),
        ("n", "n"),
    ],
)
def test_old_and_new_letters(raw, flags):
    assert normalized_flags(raw) == flags


def test_a_break_and_regions_outside_all_territories_are_noted(tmp_path):
    path = saved(tmp_path, series("C10", "ATZZ", "1", "2"), head=NEW.replace("2021", "2019"))
    notes = " ".join(read_eurostat(path, nuts_year=2021).origins[0].notes)
    assert "2021 is a break" in notes
    assert "ATZZ" in notes


@pytest.mark.parametrize(
    ("lines", "head", "options", "told"),
    [
        ([series("C10", "AT11", "1", "2")], NEW, {"nuts_year": 2020}, "nuts_year"),
        ([series("C10", "AT11", "1 q", "2")], NEW, {}, "flag"),
        ([series("C10", "AT11", "12x", "2")], NEW, {}, "flag"),
        ([series("C10", "AT11", "1")], NEW, {}, "cut off"),
        (["A,C10,AT11\t1\t2"], NEW, {}, "cut off"),
        ([series("C10", "AT11", "1", "2"), series("C10", "AT11", "1", "2", indicator="X")], NEW, {}, "indic_sbs"),
        ([series("C10", "AT11", "1", "2")], NEW, {"where": {"indic_sb": "X"}}, "indic_sb"),
        ([series("C10", "AT11", "1", "2")], NEW, {"where": {"indic_sbs": "X"}}, "no rows"),
        ([series("C10", "AT11", "1", "2")], NEW.replace("2021", "2021-Q1"), {}, "2021-q1"),
        ([series("C10", "AT11", "1", "2")], NEW.replace("2022", "2035"), {}, "regime="),
        ([series("C10", "AT11", "1", "2")], NEW.replace("nace_r2", "isic"), {}, "nace_r2"),
    ],
)  # fmt: skip
def test_what_would_be_read_wrongly_is_refused(tmp_path, lines, head, options, told):
    assert told in refused(saved(tmp_path, *lines, head=head), **options)
