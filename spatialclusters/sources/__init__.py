"""Raw files of statistical agencies -> tidy cells with bounds, and from these a panel table."""

from spatialclusters.sources.cbp import read_cbp
from spatialclusters.sources.eurostat import normalized_flags, read_eurostat
from spatialclusters.sources.levels import at_level, industry_level, leaves
from spatialclusters.sources.qcew import read_qcew
from spatialclusters.sources.regimes import REGIMES, Regime, regime_for
from spatialclusters.sources.tidy import Cells, Origin, combine_cells, read_cells, write_cells

__all__ = [
    "REGIMES",
    "Cells",
    "Origin",
    "Regime",
    "at_level",
    "combine_cells",
    "industry_level",
    "leaves",
    "normalized_flags",
    "read_cbp",
    "read_cells",
    "read_eurostat",
    "read_qcew",
    "regime_for",
    "write_cells",
]
