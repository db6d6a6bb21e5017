"""The report: one self-contained HTML page about a fit, and its numbers as JSON."""

from spatialclusters.reporting.build import Report, make_report, save_report, write_report

__all__ = ["Report", "make_report", "save_report", "write_report"]
