"""Tables for publication: estimates side by side, with what each of them rests on."""

from spatialclusters.regression_tables.build import regression_table
from spatialclusters.regression_tables.table import RegressionTable

__all__ = ["RegressionTable", "regression_table"]
