"""Commands that turn raw files into cells, and cells into a panel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from spatialclusters.cli import options
from spatialclusters.cli.inputs import check_target, pairs
from spatialclusters.cli.output import clean, note, set_verbosity, show, write
from spatialclusters.errors import PanelError, listing

if TYPE_CHECKING:
    from spatialclusters.sources import AgencyFile, Cells, Concordance, IndustryBridge

__all__ = ["data_app"]

data_app = typer.Typer(rich_markup_mode=None, help="Raw files of agencies -> cells -> panel.")

_Files = Annotated[
    list[Path] | None, typer.Argument(metavar="FILE...", help="As the agency sent them.")
]
_CellFiles = Annotated[list[Path], typer.Argument(metavar="CELLS...", help="Written by `data`.")]
_Output = Annotated[
    Path, typer.Option("--output", "-o", metavar="FILE", help="Parquet file to write.")
]
_Years = Annotated[
    list[int] | None,
    typer.Option("--download", metavar="YEAR", help="Get the agency's file of a year; repeat."),
]
_Folder = Annotated[
    Path | None,
    typer.Option(
        "--folder",
        metavar="DIR",
        help="Where downloads are kept; by default SPATIALCLUSTERS_DOWNLOADS or the user's cache. "
        "A file that is there is not downloaded.",
    ),
]
_Digests = Annotated[
    list[str] | None,
    typer.Option("--sha256", metavar="FILE=DIGEST", help="What a file must have; repeat."),
]


@data_app.command()
def cbp(
    output: _Output,
    files: _Files = None,
    year: Annotated[int | None, typer.Option("--year", help="If the name does not say it.")] = None,
    downloads: _Years = None,
    geography: Annotated[
        Literal["county", "state", "msa", "nation"],
        typer.Option("--geography", help="Which file to download."),
    ] = "county",
    folder: _Folder = None,
    digests: _Digests = None,
    sizes: Annotated[
        bool,
        typer.Option("--sizes", help="Keep establishments by size, which build --fill uses."),
    ] = False,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Read files of County Business Patterns, 1986 to 2023."""
    set_verbosity(verbose=False, quiet=quiet)
    check_target(output, force=force)
    if year is not None and len(files or []) != 1:
        msg = f"--year: got one year for {len(files or [])} files; expected one file. Read them one by one."
        raise PanelError(msg)
    from spatialclusters.sources import cbp_file, read_cbp

    wanted = [cbp_file(each, geography=geography) for each in downloads or []]
    named = {*(files or [])}
    _save(
        [
            read_cbp(file, year=year if file in named else None, sha256=digest, sizes=sizes).noted(
                *notes
            )
            for file, digest, notes in _gathered(files, wanted, folder, digests)
        ],
        output,
    )


@data_app.command()
def qcew(
    output: _Output,
    files: _Files = None,
    geography: Annotated[
        Literal["county", "state", "msa", "nation"], typer.Option("--geography")
    ] = "county",
    ownership: Annotated[
        Literal["total", "federal", "state", "local", "private"], typer.Option("--ownership")
    ] = "private",
    downloads: _Years = None,
    system: Annotated[
        Literal["naics", "sic"], typer.Option("--system", help="Which file to download.")
    ] = "naics",
    folder: _Folder = None,
    digests: _Digests = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Read annual files of the Quarterly Census of Employment and Wages."""
    set_verbosity(verbose=False, quiet=quiet)
    check_target(output, force=force)
    from spatialclusters.sources import qcew_file, read_qcew

    wanted = [qcew_file(each, system=system) for each in downloads or []]
    parts = [
        read_qcew(file, geography=geography, ownership=ownership, sha256=digest).noted(*notes)
        for file, digest, notes in _gathered(files, wanted, folder, digests)
    ]
    _save(parts, output)


@data_app.command()
def eurostat(
    output: _Output,
    nuts_year: Annotated[int, typer.Option("--nuts-year", help="Year of the regions: 2021.")],
    files: _Files = None,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="KEY=VALUE", help="Value of another dimension; repeat."),
    ] = None,
    nuts_level: Annotated[int, typer.Option("--nuts-level", min=0, max=3)] = 2,
    downloads: Annotated[
        list[str] | None,
        typer.Option("--download", metavar="TABLE", help="Get sbs_r_nuts2021, say; repeat."),
    ] = None,
    folder: _Folder = None,
    digests: _Digests = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Read TSV files of Eurostat's structural business statistics."""
    set_verbosity(verbose=False, quiet=quiet)
    check_target(output, force=force)
    from spatialclusters.sources import eurostat_file, read_eurostat

    chosen = pairs(where, "--where", "KEY=VALUE")
    wanted = [eurostat_file(each) for each in downloads or []]
    parts = [
        read_eurostat(
            file, nuts_year=nuts_year, where=chosen, nuts_level=nuts_level, sha256=digest
        ).noted(*notes)
        for file, digest, notes in _gathered(files, wanted, folder, digests)
    ]
    _save(parts, output)


@data_app.command()
def efsy(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="efsy_panel_naics.csv, or its zip.")],
    output: _Output,
    years: Annotated[
        list[int] | None, typer.Option("--year", metavar="YEAR", help="Years to read; repeat.")
    ] = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Read the county panel with imputed cells of Eckert, Fort, Schott and Yang."""
    set_verbosity(verbose=False, quiet=quiet)
    check_target(output, force=force)
    from spatialclusters.sources import read_efsy

    _save([read_efsy(file, years=years)], output)


@data_app.command()
def build(
    files: _CellFiles,
    output: _Output,
    clusters: Annotated[
        Path, typer.Option("--clusters", metavar="FILE", help="Columns industry, cluster.")
    ],
    areas: Annotated[
        Path | None,
        typer.Option("--areas", metavar="FILE", help="Columns region, area: what to sum over."),
    ] = None,
    tighten: Annotated[
        bool, typer.Option("--tighten", help="Bound withheld cells by their parents and siblings.")
    ] = False,
    complete: Annotated[
        bool,
        typer.Option(
            "--complete",
            help="With --tighten or --fill: every part of an industry has a row in the files.",
        ),
    ] = False,
    fill: Annotated[
        Literal["dorn"] | None,
        typer.Option(
            "--fill",
            help="Give withheld cells a value: in proportion, inside their bounds, adding up. It carries no "
            "uncertainty.",
        ),
    ] = None,
    recode: Annotated[
        bool, typer.Option("--recode", help="Give counties their latest code in all years.")
    ] = False,
    concordance: Annotated[
        Path | None,
        typer.Option(
            "--concordance",
            metavar="FILE",
            help="Converts industries --from one classification --to another; columns code, target and, "
            "named by --map weight=COLUMN, shares.",
        ),
    ] = None,
    source: Annotated[
        str | None, typer.Option("--from", metavar="NAME", help="For example 'NAICS 2012'.")
    ] = None,
    target: Annotated[
        str | None, typer.Option("--to", metavar="NAME", help="For example 'NAICS 2017'.")
    ] = None,
    region_concordance: Annotated[
        Path | None,
        typer.Option(
            "--region-concordance",
            metavar="FILE",
            help="Converts the regions that it lists; --map region_code=COLUMN, region_target, "
            "region_weight.",
        ),
    ] = None,
    renames: options.Renames = None,
    ends: Annotated[
        tuple[int, int] | None,
        typer.Option("--ends", metavar="FIRST LAST", help="Columns x_start, x_end."),
    ] = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Sum cells over areas and give industries their clusters: what --data takes.

    --map region=COLUMN, area=COLUMN, industry=COLUMN and cluster=COLUMN name the columns.
    Each file of cells is tightened, filled, recoded and converted by itself, in this order.
    """
    set_verbosity(verbose=False, quiet=quiet)
    check_target(output, force=force)
    from spatialclusters.files import replace_file
    from spatialclusters.sources import (
        prepare_cells,
        read_cells,
        read_clusters,
        read_region_map,
        to_panel,
    )

    names = {"region": "region", "area": "area"} | pairs(renames, "--map", "NEW=OLD")
    bridge, shares = _concordances(concordance, region_concordance, names, source, target)
    cells = prepare_cells(
        [read_cells(file) for file in files],
        tighten=tighten, complete=complete, fill=fill, recode=recode, regions=shares, industries=bridge,
    )  # fmt: skip
    definition = read_clusters(clusters, rename=names)
    regions = (
        None
        if areas is None
        else read_region_map(areas, region=names["region"], area=names["area"])
    )
    table = to_panel(cells, definition, regions, ends=ends)
    _written(output, lambda: replace_file(output, lambda file: table.to_parquet(file, index=False)))
    for line in table.attrs["spatialclusters"]["notes"]:
        note(f"Note: {line}")
    write(clean(f"{len(table)} rows, {table['region'].nunique()} regions: {output}"))


@data_app.command()
def check(files: _CellFiles, style: options.Format = "table") -> None:
    """Print what cells hold, by year and level, and regions whose parts exceed their total."""
    from spatialclusters.sources import (
        combine_cells,
        exceeding_totals,
        read_cells,
        summarize_cells,
    )

    cells = combine_cells([read_cells(file) for file in files])
    show(summarize_cells(cells), style, title="Cells by year and level of the industry")
    _say_origins(cells)
    found = exceeding_totals(cells)
    if len(found):
        worst = (found["parts"] / found["total"].clip(lower=1)).max()
        note(
            f"{len(found)} regions and years whose industries exceed their total, by a factor of at "
            f"most {worst:.3f}: small where there is noise."
        )


def _concordances(
    industries: Path | None,
    regions: Path | None,
    names: dict[str, str],
    source: str | None,
    target: str | None,
) -> tuple[IndustryBridge | None, Concordance | None]:
    """Read the concordances; their names are those of the files."""
    from spatialclusters.sources import IndustryBridge, read_concordance

    bridge = None
    if (industries is None) != (source is None) or (industries is None) != (target is None):
        msg = "--concordance: got some of --concordance, --from and --to; expected all or none. Name them."
        raise PanelError(msg)
    if industries is not None:
        shares = read_concordance(
            industries, name=industries.name, code=names.get("code", "code"),
            target=names.get("target", "target"), weight=names.get("weight"),
        )  # fmt: skip
        bridge = IndustryBridge(shares, str(source), str(target))
    if regions is None:
        return bridge, None
    return bridge, read_concordance(
        regions, name=regions.name, code=names.get("region_code", "code"),
        target=names.get("region_target", "target"), weight=names.get("region_weight"),
    )  # fmt: skip


def _gathered(
    files: list[Path] | None,
    wanted: list[AgencyFile],
    folder: Path | None,
    digests: list[str] | None,
) -> list[tuple[Path, str | None, tuple[str, ...]]]:
    """List the files given and downloaded, with the digest that each must have and what to note."""
    stated = pairs(digests, "--sha256", "FILE=DIGEST")
    names = [*(file.name for file in files or []), *(file.name for file in wanted)]
    if not names:
        msg = "data: got no files; expected some, or --download to get one. Name one."
        raise PanelError(msg)
    unknown = sorted({*stated} - {*names})
    if unknown:
        msg = f"--sha256: got {listing(unknown)}; expected names among {listing(names)}. Correct them."
        raise PanelError(msg)
    from spatialclusters.sources import download

    found: list[tuple[Path, str | None, tuple[str, ...]]] = [
        (file, stated.get(file.name), ()) for file in files or []
    ]
    for each in wanted:
        note(f"{each.name}: {each.url}")
        got = download(each, sha256=stated.get(each.name), folder=folder)
        found.append((got.path, got.digest, (got.describe(),)))
    return found


def _save(parts: list[Cells], output: Path) -> None:
    from spatialclusters.sources import combine_cells, summarize_cells, write_cells

    cells = combine_cells(parts)
    _written(output, lambda: write_cells(cells, output))
    show(summarize_cells(cells), "table", title="Cells by year and level of the industry")
    _say_origins(cells)
    write(clean(f"Saved {output}"))


def _written(output: Path, write: Callable[[], None]) -> None:
    try:
        write()
    except OSError as cause:
        msg = f"{output}: cannot be written ({cause}). Make room, or choose another place with -o."
        raise PanelError(msg) from cause


def _say_origins(cells: Cells) -> None:
    for origin in cells.origins:
        note(
            f"{origin.file}: {origin.source} {origin.vintage}, {origin.classification}; {origin.rule}"
        )
        for line in origin.notes:
            note(f"  Note: {line}")
