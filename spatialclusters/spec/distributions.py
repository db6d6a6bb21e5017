"""The prior distributions that a model file may state."""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

Real = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Part(BaseModel):
    """A frozen table of a model file: unknown keys and other types are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Distribution(Part):
    """A prior distribution with its numbers."""

    def describe(self) -> str:
        """Return the prior as text.

        Examples
        --------
        >>> Normal(distribution="normal", mean=0, sd=0.5).describe()
        'normal(0, 0.5)'
        """
        name, *numbers = dict(self).values()
        return f"{name}({', '.join(f'{number:.15g}' for number in numbers)})"


class Normal(Distribution):
    """Normal, by mean and standard deviation."""

    distribution: Literal["normal"]
    mean: Real
    sd: Positive


class StudentT(Distribution):
    """Student t, by degrees of freedom, location and scale."""

    distribution: Literal["student_t"]
    nu: Positive
    mean: Real
    sd: Positive


class HalfNormal(Distribution):
    """Normal around zero, cut to positive numbers."""

    distribution: Literal["half_normal"]
    sd: Positive


class HalfStudentT(Distribution):
    """Student t around zero, cut to positive numbers."""

    distribution: Literal["half_student_t"]
    nu: Positive
    sd: Positive


class Exponential(Distribution):
    """Exponential, by rate (one over the mean)."""

    distribution: Literal["exponential"]
    rate: Positive


class Uniform(Distribution):
    """Uniform between two bounds; for reference runs."""

    distribution: Literal["uniform"]
    lower: Real
    upper: Real

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.lower >= self.upper:
            raise ValueError(
                f"got lower = {self.lower:g}, upper = {self.upper:g}; expected lower < upper."
            )
        return self


class Beta(Distribution):
    """Beta on (0, 1)."""

    distribution: Literal["beta"]
    a: Positive
    b: Positive


class Lkj(Distribution):
    """LKJ over correlation matrices: eta = 1 is uniform, larger favors zero."""

    distribution: Literal["lkj"]
    eta: Positive


class Dirichlet(Distribution):
    """Symmetric Dirichlet over shares: concentration 1 is uniform, larger favors equal shares."""

    distribution: Literal["dirichlet"]
    concentration: Positive


class Flat(Distribution):
    """Constant density; improper, for reference runs."""

    distribution: Literal["flat"]


class InverseScale(Distribution):
    """Density one over the parameter; improper, for reference runs."""

    distribution: Literal["inverse_scale"]


Prior = Annotated[
    Normal
    | StudentT
    | HalfNormal
    | HalfStudentT
    | Exponential
    | Uniform
    | Beta
    | Lkj
    | Dirichlet
    | Flat
    | InverseScale,
    Field(discriminator="distribution"),
]


DISTRIBUTIONS: dict[str, type[BaseModel]] = {
    get_args(kind.model_fields["distribution"].annotation)[0]: kind
    for kind in get_args(get_args(Prior)[0])
}
