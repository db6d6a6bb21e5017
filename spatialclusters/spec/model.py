"""The model specification: one frozen value per model file, consistent in itself."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, ValidationInfo, field_validator, model_validator

from spatialclusters.errors import SpecError
from spatialclusters.formula import Formula, parse_formula
from spatialclusters.spec.checks import (
    FIELD_PARAMETERS,
    MAX_PROBLEMS,
    OUTCOME_PARAMETERS,
    logged,
    problems,
    unknown,
)
from spatialclusters.spec.distributions import Part, Prior

Structure = Literal["iid", "icar", "car", "leroux", "bym2", "sar"]
OutcomeProcess = Literal["none", "sar", "sem", "sac"]
Family = Literal["gaussian", "student-t"]
Scale = Literal["constant", "by-cluster", "size"]
EffectKind = Literal["random", "correlated", "fixed"]
ZeroRule = Literal["drop", "minimum-and-dummy", "asinh", "log1p"]

_Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")]
_Strings = Annotated[tuple[str, ...], Field(strict=False)]
_Year = Annotated[int, Field(ge=1, le=9999)]
_KM = r"\d{1,9}(\.\d{1,9})?"
_GIVEN = rf"(queen|rook|knn:\d{{1,4}}|distance:{_KM})"
_parsed = functools.lru_cache(maxsize=64)(parse_formula)


class Roles(Part):
    """Terms that the report calls convergence and specialization."""

    convergence: str | None = None
    specialization: _Strings = ()


class Growth(Part):
    """How the response ``growth`` is built from a panel variable."""

    variable: _Name
    from_year: _Year = Field(alias="from")
    to_year: _Year = Field(alias="to")
    annualized: bool = False

    @property
    def years(self) -> int:
        """Horizon in years."""
        return self.to_year - self.from_year


class Cells(Part):
    """What cells without a published value count as in sums."""

    absent: Literal["zero", "withheld"]
    withheld: Literal["zero", "lower", "filled", "missing"]
    fill: Literal["midpoint"] | None = None


class Measures(Part):
    """Choices in the measures of strength."""

    totals: Literal["all", "traded"] = "all"
    neighbor_leave_out: bool = False


class GroupEffect(Part):
    """How the effects of one group of the formula are modeled.

    ``structure`` other than ``iid`` lets neighbors have similar effects: those of regions, or
    of each cluster's own regions.
    """

    effect: EffectKind = "random"
    structure: Structure = "iid"
    links: Literal["symmetric", "union", "mutual"] = "symmetric"

    @property
    def parameter(self) -> str | None:
        """Name of what governs the structure beside its standard deviation."""
        return FIELD_PARAMETERS[self.structure]


class Spatial(Part):
    """The spatial process of the outcome: a lag (sar), of the noise (sem), or both (sac)."""

    outcome: OutcomeProcess = "none"
    blocks: Literal["restandardize", "subset"] = "restandardize"

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the process's parameters: ``rho`` of the response, ``lambda`` of the noise."""
        return OUTCOME_PARAMETERS[self.outcome]


class Likelihood(Part):
    """The distribution of the noise and how its scale varies."""

    family: Family = "gaussian"
    scale: Scale = "constant"


class WeightsChoice(Part):
    """Which spatial weights are built when none are given.

    They are estimated if they fall with distance, or are a mixture of two to four.
    """

    kind: Annotated[
        str, Field(pattern=rf"^({_GIVEN}( \+ {_GIVEN}){{0,3}}|decay-(power|exponential):{_KM})$")
    ] = "queen"
    row_standardize: bool = True


class ModelSpec(Part):
    """A model, as its file states it; ``groups`` holds an entry for every group of the formula."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = "model"
    title: str = ""
    description: str | None = None
    cite: _Strings = ()
    formula: str
    roles: Roles = Roles()
    growth: Growth | None = None
    cells: Cells | None = None
    zeros: Mapping[str, ZeroRule] = {}
    measures: Measures = Measures()
    groups: Annotated[Mapping[str, GroupEffect], Field(validate_default=True)] = {}
    spatial: Spatial = Spatial()
    likelihood: Likelihood = Likelihood()
    weights: WeightsChoice = WeightsChoice()
    priors: Mapping[str, Prior] = {}
    expects: Mapping[str, Literal["negative", "positive"]] = {}

    @field_validator("formula")
    @classmethod
    def _formula_in_grammar(cls, text: str) -> str:
        try:
            return _parsed(text).text
        except SpecError as error:
            raise ValueError(str(error).removeprefix("formula: ")) from None

    @field_validator("groups")
    @classmethod
    def _every_group(
        cls, given: Mapping[str, GroupEffect], info: ValidationInfo
    ) -> Mapping[str, GroupEffect]:
        if "formula" not in info.data:
            return given
        names = [group.name for group in _parsed(info.data["formula"]).groups]
        if wrong := [name for name in given if name not in names]:
            raise ValueError(unknown(wrong[0], names, "a group of the formula"))
        return {name: given.get(name, GroupEffect()) for name in names}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if found := list(itertools.islice(problems(self), MAX_PROBLEMS + 1)):
            raise ValueError("\n".join(found))
        return self

    @property
    def parsed_formula(self) -> Formula:
        """The formula as values."""
        return _parsed(self.formula)

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of every field, defaults included."""
        data = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def covariate_labels(self) -> dict[str, str]:
        """Labels a covariate can get in a design, each with the formula's label for it.

        They cover every zero rule and every kind of group effect, so that priors and expected
        signs stay valid when a run overrides those: ``asinh(x)`` maps to ``log(x)``, the dummy
        ``zero(x)`` to itself, ``mean(asinh(x) | region)`` to ``mean(log(x) | region)``.
        """
        formula = self.parsed_formula
        labels = {str(term): str(term) for term in formula.all_terms}
        for inner in logged(formula):
            for rule in ("asinh", "log1p"):
                old, new = f"log({inner})", f"{rule}({inner})"
                labels |= {label.replace(old, new): origin for label, origin in labels.items()}
            labels[f"zero({inner})"] = f"zero({inner})"
        return labels | {
            f"mean({label} | {group.name})": f"mean({origin} | {group.name})"
            for label, origin in labels.items()
            for group in formula.groups
        }


TABLES: dict[str, type[BaseModel]] = {
    "roles": Roles,
    "growth": Growth,
    "cells": Cells,
    "measures": Measures,
    "groups": GroupEffect,
    "spatial": Spatial,
    "likelihood": Likelihood,
    "weights": WeightsChoice,
}
