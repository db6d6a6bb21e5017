"""Bayesian hierarchical models of region-cluster growth with spatial spillovers.

Names are loaded when they are used: importing the package imports neither PyMC nor
JAX, ArviZ nor libpysal.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
