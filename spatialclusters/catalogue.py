"""The shipped models, and model files by path."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from spatialclusters.errors import SpecError, listing, suggestion
from spatialclusters.spec import ModelSpec, override, parse_spec
from spatialclusters.spec.text import MAX_BYTES

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["citation", "list_models", "load_model", "model_text"]


def _folder() -> Path:
    """Return where the models are: in the package (a wheel) or beside it (the repository)."""
    package = Path(__file__).resolve().parent
    inside = package / "models"
    return inside if inside.is_dir() else package.parent / "models"


def _names() -> list[str]:
    return sorted(path.stem for path in _folder().glob("*.toml"))


def list_models() -> pd.DataFrame:
    """Return the shipped models: name, title, formula, cite.

    Examples
    --------
    >>> list_models()["name"].tolist()
    ['cluster_growth', 'cluster_growth_bym2', 'cluster_growth_lag', 'employment_growth',
     'employment_growth_bym2', 'income_convergence', 'income_convergence_distance',
     'income_convergence_error', 'income_convergence_lag']
    """
    import pandas as pd

    specs = [load_model(name) for name in _names()]
    rows = [(spec.name, spec.title, spec.formula, ", ".join(spec.cite)) for spec in specs]
    return pd.DataFrame(rows, columns=["name", "title", "formula", "cite"])


def model_text(name: str | Path) -> str:
    """Return the text of a shipped model, by name, or of a model file, by a path to a ``.toml``.

    Raises
    ------
    SpecError
        If there is no such model or file, or it is not text of at most 256 kB.

    Examples
    --------
    >>> model_text("income_convergence").splitlines()[1]
    'name = "income_convergence"'
    """
    where = str(name)
    names = _names()
    if where.endswith(".toml"):
        stem = Path(name).stem
        if stem in names and not Path(name).exists():
            msg = f"{listing([where])}: got no such file; expected a model file. The shipped model of "
            raise SpecError(f"{msg}that name is called {stem!r}, without .toml.")
        return _read(Path(name), where)
    if not re.fullmatch(r"[a-z0-9_]+", where) or where not in names:
        expected = f"one of {listing(names, 20)}, or a path ending in .toml"
        hint = suggestion(where, names)
        raise SpecError(f"model: got {listing([where])}; expected {expected}.{hint}")
    return _read(_folder() / f"{where}.toml", where)


def _read(path: Path, where: str) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or str(error)
        message = f"{listing([where])}: got {problem!r}; expected a readable file."
        raise SpecError(f"{message} Check the path.") from None
    if len(data) > MAX_BYTES:
        message = f"{listing([where])}: got more than {MAX_BYTES} bytes; expected a model file."
        raise SpecError(f"{message} Check the path.")
    try:
        return data.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        message = f"{listing([where])}: got a byte that is not UTF-8 at {error.start}"
        raise SpecError(f"{message}; expected a text file. Save it as UTF-8.") from None


def load_model(name: str | Path, overrides: Mapping[str, object] | None = None) -> ModelSpec:
    """Load a shipped model by name, or a model file by a path ending in ``.toml``.

    Parameters
    ----------
    name
        For example ``"employment_growth"`` or ``"my_model.toml"``.
    overrides
        Changed values by dotted key, as in :func:`spatialclusters.spec.override`.

    Raises
    ------
    SpecError
        If there is no such model, or it is not valid.

    Examples
    --------
    >>> load_model("employment_growth", {"growth.to": 2019}).growth.years
    1
    """
    spec = parse_spec(model_text(name), where=str(name)[:200])
    return override(spec, overrides, where=f"override of {str(name)[:200]}") if overrides else spec


def citation(spec: ModelSpec) -> str:
    """Return the BibTeX entries of the works a model cites.

    Raises
    ------
    SpecError
        If the model cites a key that ``references.bib`` does not have.

    Examples
    --------
    >>> print(citation(load_model("income_convergence")).splitlines()[0])
    @article{Barro1992,
    """
    text = _read(_folder() / "references.bib", "references.bib")
    blocks = (block.strip() for block in re.split(r"^(?=@)", text, flags=re.MULTILINE))
    entries = {block[block.index("{") + 1 : block.index(",")]: block for block in blocks if block}
    for key in spec.cite:
        if key not in entries:
            expected = f"a key of references.bib: {listing(entries, 20)}"
            hint = suggestion(key, entries)
            raise SpecError(f"cite: got {listing([key])}; expected {expected}.{hint}")
    return "\n\n".join(entries[key] for key in spec.cite)
