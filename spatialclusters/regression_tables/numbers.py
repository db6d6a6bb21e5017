"""An estimate and how well it is known, written with as many digits as that deserves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from spatialclusters.reporting.text import fixed

__all__ = ["Estimate"]

_FINEST: Final = 8  # decimals; what needs more, or is larger than the largest, gets a power of ten
_LARGEST: Final = 1e9
_LONGEST: Final = 9  # significant digits of a number with a power of ten


@dataclass(frozen=True)
class Estimate:
    """A number with its uncertainty; what is not known of it is NaN.

    Attributes
    ----------
    estimate
        Posterior mean or median, or the estimate of a regression.
    std_error
        Standard deviation of the posterior, or standard error.
    ci_low, ci_high
        Ends of the 95 % interval; may be infinite.
    """

    estimate: float
    std_error: float
    ci_low: float
    ci_high: float

    @property
    def shown(self) -> bool:
        """Whether it may be shown: it is a number, and its uncertainty is known."""
        uncertain = not math.isnan(self.std_error) or not math.isnan(self.ci_low + self.ci_high)
        return uncertain and not math.isnan(self.estimate)

    def place(self, digits: int) -> int:
        """Return the decimal place at which all its numbers are rounded, 2 for hundredths.

        It is that of the last of ``digits`` significant digits of the standard error; without
        one, of a quarter of the interval or a tenth of the estimate, whichever is smaller, and
        if both are infinite of a tenth of the finite end.

        Examples
        --------
        >>> Estimate(-0.05588, 0.00837, -0.0723, -0.0395).place(2)
        4
        """
        width = (self.ci_high - self.ci_low) / 4.0
        ends = [abs(end) / 10.0 for end in self.interval]
        for errors in ([self.std_error], [width, abs(self.estimate) / 10.0], ends):
            known = [error for error in errors if math.isfinite(error)]
            if known:
                least = min(known)
                return digits - 1 - math.floor(math.log10(least)) if least > 0.0 else digits
        return digits

    def texts(self, digits: int) -> tuple[str, str, str]:
        """Write estimate, (standard error) and [interval]; what is not known is empty.

        Examples
        --------
        >>> Estimate(-0.05588, 0.00837, -0.0723, -0.0395).texts(2)
        ('−0.0559', '(0.0084)', '[−0.0723, −0.0395]')
        >>> Estimate(1.2e-10, 3.1e-11, 5.9e-11, 1.81e-10).texts(2)
        ('1.20e−10', '(3.1e−11)', '[5.9e−11, 1.81e−10]')
        """
        place, numbers = self.place(digits), (self.estimate, self.std_error, *self.interval)
        finite = [abs(number) for number in numbers if math.isfinite(number)]
        powers = place > _FINEST or max(finite, default=0.0) >= _LARGEST
        write = _scientific if powers else _plain
        estimate, error, low, high = (write(number, place) for number in numbers)
        return (
            estimate,
            "" if math.isnan(self.std_error) else f"({error})",
            "" if math.isnan(self.ci_low + self.ci_high) else f"[{low}, {high}]",
        )

    @property
    def interval(self) -> tuple[float, float]:
        """Both ends of the interval."""
        return self.ci_low, self.ci_high


def _plain(value: float, place: int) -> str:
    return fixed(value, max(place, 0))


def _scientific(value: float, place: int) -> str:
    if not math.isfinite(value):
        return fixed(value, 0)
    rounded = round(value, place)
    if rounded == 0.0:
        return "0"
    digits = min(math.floor(math.log10(abs(rounded))) + place, _LONGEST - 1)
    return f"{rounded:.{max(digits, 0)}e}".replace("-", "−")
