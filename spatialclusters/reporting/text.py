"""Numbers as a reader of a report wants them: few digits, true minus signs, no NaN."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["count", "decimals_for", "fixed", "interval", "number", "probability", "share"]


def number(value: float, digits: int = 3) -> str:
    """Format with significant digits.

    Examples
    --------
    >>> [number(x) for x in (-0.05588, 12345.6, 4.1e-07, 0.0, float("nan"), float("inf"))]
    ['−0.0559', '12,346', '4.1e−07', '0', '—', '∞']
    """
    if not math.isfinite(value):
        return _special(value)
    if value == 0.0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if exponent < -5 or exponent > 8:
        text = f"{value:.{digits - 1}e}"
        mantissa, _, power = text.partition("e")
        text = f"{mantissa.rstrip('0').rstrip('.')}e{power}"
    else:
        text = f"{value:,.{max(0, digits - 1 - exponent)}f}"
    return text.replace("-", "−")


def fixed(value: float, decimals: int) -> str:
    """Format with a number of decimals, the same for a whole row of a table.

    Examples
    --------
    >>> fixed(-0.0559, 3), fixed(-0.0001, 2)
    ('−0.056', '0.00')
    """
    if not math.isfinite(value):
        return _special(value)
    rounded = round(value, decimals) + 0.0  # no negative zero
    return f"{rounded:,.{decimals}f}".replace("-", "−")


def decimals_for(*errors: float) -> int:
    """Return the decimals that show two significant digits of the smallest error.

    Examples
    --------
    >>> decimals_for(0.00837), decimals_for(12.0), decimals_for(float("nan"))
    (4, 0, 3)
    """
    usable = [error for error in errors if math.isfinite(error) and error > 0.0]
    if not usable:
        return 3
    return min(max(0, 1 - math.floor(math.log10(min(usable)))), 10)


def interval(low: float, high: float, decimals: int) -> str:
    """Format an interval in brackets, NaN on both sides as a dash.

    Examples
    --------
    >>> interval(-0.0716, 0.5, 2), interval(12.0, float("inf"), 0)
    ('[−0.07, 0.50]', '[12, ∞]')
    """
    if math.isnan(low) and math.isnan(high):
        return "—"
    return f"[{fixed(low, decimals)}, {fixed(high, decimals)}]"


def probability(value: float) -> str:
    """Format a probability; what draws cannot tell from 0 or 1 is not called that.

    Examples
    --------
    >>> probability(0.97512), probability(1.0), probability(0.0)
    ('0.975', '> 0.999', '< 0.001')
    """
    if math.isnan(value):
        return "—"
    if value > 0.9995:
        return "> 0.999"
    return "< 0.001" if value < 0.0005 else f"{value:.3f}"


def count(value: float) -> str:
    """Format a whole number with thousands separators.

    Examples
    --------
    >>> count(123456.4), count(float("nan"))
    ('123,456', '—')
    """
    return f"{value:,.0f}" if math.isfinite(value) else _special(value)


def share(part: float, whole: float) -> str:
    """Format a part of a whole in percent.

    Examples
    --------
    >>> share(2977, 8670), share(1, 0)
    ('34.3 %', '—')
    """
    return f"{100.0 * part / whole:.1f} %" if whole else "—"


def _special(value: float) -> str:
    if np.isnan(value):
        return "—"
    return "∞" if value > 0 else "−∞"
