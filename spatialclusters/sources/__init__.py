"""Raw files of statistical agencies -> tidy cells with bounds, and from these a panel table."""

from spatialclusters.sources.cbp import read_cbp
from spatialclusters.sources.checks import exceeding_totals, summarize_cells
from spatialclusters.sources.clusters import to_panel
from spatialclusters.sources.concordance import (
    Concordance,
    convert_cells,
    convertible_cells,
    read_concordance,
    recode_regions,
)
from spatialclusters.sources.definitions import Definition, read_clusters, read_region_map
from spatialclusters.sources.downloads import (
    AgencyFile,
    Download,
    cbp_file,
    download,
    download_folder,
    eurostat_file,
    qcew_file,
)
from spatialclusters.sources.efsy import read_efsy
from spatialclusters.sources.eurostat import normalized_flags, read_eurostat
from spatialclusters.sources.fill import proportional_fill
from spatialclusters.sources.levels import at_level, industry_level, leaves
from spatialclusters.sources.qcew import read_qcew
from spatialclusters.sources.recodes import RECODES, Recode
from spatialclusters.sources.regimes import REGIMES, SIZES, Regime, regime_for
from spatialclusters.sources.steps import IndustryBridge, prepare_cells
from spatialclusters.sources.suppression import tighten_bounds
from spatialclusters.sources.table_cells import read_cell_table
from spatialclusters.sources.tidy import Cells, Origin, combine_cells, read_cells, write_cells

__all__ = [
    "RECODES",
    "REGIMES",
    "SIZES",
    "AgencyFile",
    "Cells",
    "Concordance",
    "Definition",
    "Download",
    "IndustryBridge",
    "Origin",
    "Recode",
    "Regime",
    "at_level",
    "cbp_file",
    "combine_cells",
    "convert_cells",
    "convertible_cells",
    "download",
    "download_folder",
    "eurostat_file",
    "exceeding_totals",
    "industry_level",
    "leaves",
    "normalized_flags",
    "prepare_cells",
    "proportional_fill",
    "qcew_file",
    "read_cbp",
    "read_cell_table",
    "read_cells",
    "read_clusters",
    "read_concordance",
    "read_efsy",
    "read_eurostat",
    "read_qcew",
    "read_region_map",
    "recode_regions",
    "regime_for",
    "summarize_cells",
    "tighten_bounds",
    "to_panel",
    "write_cells",
]
