"""Model files as text: reading, changing single keys, writing, and wording what is wrong."""

from __future__ import annotations

import copy
import itertools
import json
import re
import reprlib
import tomllib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from spatialclusters.errors import SpecError, listing, suggestion
from spatialclusters.spec.checks import BARE, MAX_PROBLEMS, key, string, unknown
from spatialclusters.spec.distributions import DISTRIBUTIONS
from spatialclusters.spec.model import TABLES, GroupEffect, ModelSpec

__all__ = ["json_schema", "override", "parse_spec", "spec_to_toml"]

MAX_BYTES, MAX_DOTS = 256 * 1024, 200


def parse_spec(text: str, where: str = "model file") -> ModelSpec:
    """Read the text of a model file.

    Parameters
    ----------
    text
        TOML of at most 256 kB.
    where
        What the errors call it.

    Returns
    -------
    ModelSpec
        The checked model.

    Raises
    ------
    SpecError
        One error that names every problem: key, what came, what is allowed.

    Examples
    --------
    >>> spec = parse_spec('formula = "CRIME ~ INC + HOVAL"')
    >>> spec.likelihood.family, spec.parsed_formula.variables
    ('gaussian', ('INC', 'HOVAL'))
    """
    return _validated(_load(text, where), where)


def _load(text: str, where: str) -> dict[str, Any]:
    if len(text) > MAX_BYTES:
        raise SpecError(
            f"{where}: got {len(text)} characters; expected at most {MAX_BYTES}. Cut it."
        )
    if max(map(str.count, text.splitlines(), itertools.repeat(".")), default=0) > MAX_DOTS:
        problem = f"a line with more than {MAX_DOTS} dots"  # tomllib takes quadratic time
        raise SpecError(f"{where}: got {problem}; expected short keys and lines. Break the line.")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(
            f"{where}: got invalid TOML ({error}); expected TOML. Correct it."
        ) from None
    except (ValueError, RecursionError):
        problem = "a value too deep, too long or out of range"
        raise SpecError(f"{where}: got {problem}; expected a model file. Correct it.") from None


def _validated(data: Mapping[str, Any], where: str) -> ModelSpec:
    try:
        return ModelSpec.model_validate(data)
    except ValidationError as error:
        items = error.errors(include_url=False)
        lines = (line for item in items for line in _explained(item))
        found = list(itertools.islice(lines, MAX_PROBLEMS + 1))
        if len(found) == 1:
            raise SpecError(f"{where}: {found[0]}") from None
        count = str(len(found))
        if len(found) > MAX_PROBLEMS:
            count, found[-1] = f"more than {MAX_PROBLEMS}", "..."
        raise SpecError("\n  ".join([f"{where}: {count} problems", *found])) from None


_EXPECTED = {
    "dict_type": "a table",
    "greater_than": "a number greater than {gt}",
    "int_parsing_size": "a smaller integer",
    "less_than_equal": "a number of at most {le}",
    "mapping_type": "a table",
    "model_attributes_type": "a table",
    "model_type": "a table",
    "string_pattern_mismatch": "text that matches {pattern}",
    "tuple_type": "a list",
}


class _Short(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        return super().repr_int(x, level) if abs(x) < 10**18 else "a very large integer"


def _explained(item: Mapping[str, Any]) -> list[str]:
    """Word one problem that pydantic found; our own validators have worded theirs."""
    location = [part for part in item["loc"] if part != "[key]"]
    kind, context, got = item["type"], item.get("ctx", {}), _Short().repr(item["input"])
    if location[:1] == ["priors"]:
        location = location[:2] + location[3:]  # pydantic puts the distribution in between
    path = ".".join(key(str(part)) for part in location)
    if kind == "value_error":
        lines = str(context["error"]).split("\n")
        return [f"{path}: {line}" if path else line for line in lines]
    if kind == "extra_forbidden":
        fields = _table(item["loc"]).model_fields.items()
        keys = [field.alias or name for name, field in fields]
        return [f"{path}: {unknown(str(location[-1]), keys, 'one of the keys')}"]
    if kind == "missing":
        return [f"{path}: got nothing; expected a value. Add the key."]
    if kind == "union_tag_not_found":
        return [f"{path}.distribution: got nothing; expected one of {listing(DISTRIBUTIONS, 20)}."]
    if kind == "union_tag_invalid":
        given = str(context["tag"])
        return [f"{path}.distribution: {unknown(given, DISTRIBUTIONS, 'one of')}"]
    expected = str(item["msg"]).removeprefix("Input should be ")
    if kind in _EXPECTED:
        expected = _EXPECTED[kind].format(**context)
    allowed = re.findall(r"'([^']*)'", str(context.get("expected", "")))
    hint = suggestion(item["input"], allowed) if isinstance(item["input"], str) else ""
    return [f"{path}: got {got}; expected {expected}.{hint}"]


def _table(location: tuple[str | int, ...]) -> type[BaseModel]:
    if len(location) == 1:
        return ModelSpec
    head = str(location[0])
    return DISTRIBUTIONS[str(location[2])] if head == "priors" else TABLES[head]


def override(
    spec: ModelSpec, overrides: Mapping[str, object], where: str = "override"
) -> ModelSpec:
    """Return the model with some keys changed, checked like a model file.

    Parameters
    ----------
    spec
        The model to start from.
    overrides
        Values by dotted key; a label is quoted (``priors."log(x)"``). A string that is a TOML
        value is read as one, so values may come from a command line; None removes the key.
    where
        What the errors call it.

    Raises
    ------
    SpecError
        If a key is malformed or the changed model is not valid.

    Examples
    --------
    >>> spec = parse_spec('formula = "CRIME ~ INC"')
    >>> override(spec, {"weights.row_standardize": "false"}).weights.row_standardize
    False
    """
    data = spec.model_dump(by_alias=True, exclude_none=True)
    defaults = GroupEffect().model_dump()
    data["groups"] = {name: group for name, group in data["groups"].items() if group != defaults}
    for name, value in overrides.items():
        *parents, last = _split(name, where)
        table = data
        for part in parents:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                expected = f"a key inside a table, but {part!r} is a value"
                raise SpecError(f"{where}: got {listing([name])}; expected {expected}. Shorten it.")
        if value is None:
            table.pop(last, None)
        else:
            table[last] = (
                _from_text(value, where) if isinstance(value, str) else copy.deepcopy(value)
            )
    return _validated(data, where)


_PART = re.compile(rf'"([^"\\\r\n]+)"|({BARE})')


def _split(text: str, where: str) -> list[str]:
    if len(text) > 400 or not re.fullmatch(rf"({_PART.pattern})(\.({_PART.pattern}))*", text):
        example = """'growth.to' or 'priors."log(x)"'"""
        raise SpecError(
            f"{where}: got {listing([text])}; expected a key like {example}. Correct it."
        )
    return [quoted or bare for quoted, bare in _PART.findall(text)]


def _from_text(text: str, where: str) -> object:
    try:
        data = _load(f"value = {text}", where)
    except SpecError:
        return text
    return data["value"] if list(data) == ["value"] else text


def spec_to_toml(spec: ModelSpec) -> str:
    """Write a model as TOML with every default stated; ``parse_spec`` reads the same model back.

    Examples
    --------
    >>> print(spec_to_toml(parse_spec('formula = "CRIME ~ INC"')))
    schema = 1
    name = "model"
    ...
    formula = "CRIME ~ INC"
    ...
    """
    data = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    values = {name: value for name, value in data.items() if not isinstance(value, dict)}
    lines = [f"{name} = {_toml(value)}" for name, value in values.items()]
    for name, table in data.items():
        if name not in values and table:
            lines += ["", f"[{name}]"]
            lines += [f"{key(part)} = {_toml(value)}" for part, value in table.items()]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    match value:
        case dict():
            return (
                f"{{ {', '.join(f'{key(part)} = {_toml(item)}' for part, item in value.items())} }}"
            )
        case list():
            return f"[{', '.join(map(_toml, value))}]"
        case str():
            return string(value)
        case _:  # numbers and booleans
            return json.dumps(value)


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of a model file, for editors.

    Examples
    --------
    >>> json_schema()["required"]
    ['formula']
    """
    return ModelSpec.model_json_schema(by_alias=True)
