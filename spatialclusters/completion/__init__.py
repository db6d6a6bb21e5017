"""Withheld cells drawn under the model of growth, and fits pooled over the panels."""

from spatialclusters.completion.panels import Completed, complete_panels
from spatialclusters.completion.pooling import between_panels, fit_completed

__all__ = ["Completed", "between_panels", "complete_panels", "fit_completed"]
