"""The report: one self-contained HTML page about a fit."""

from spatialclusters.reporting.build import write_report

__all__ = ["write_report"]
