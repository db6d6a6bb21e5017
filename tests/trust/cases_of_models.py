"""Bad model files, formulas and settings."""

from __future__ import annotations

from pathlib import Path

from tests.trust.cases import Case, validated
from tests.trust.made import GROWTH, PLAIN, SAR, economy, ring

ICAR = PLAIN.replace("x + z", "x + z + (1 | region)") + "[groups.region]\n"
HUGE = 100 * 2**20


def _model(name, says, spec, *words, **more) -> Case:
    return validated("Model file", name, says, *words, spec=spec, **more)


def _prior(name, says, prior, spec=PLAIN, **more) -> Case:
    return _model(name, says, f"{spec}[priors]\n{prior}\n", **more)


def _formula(text, says, fits=False) -> Case:
    shown = text if len(text) < 60 else f"{text[:30]} ... ({len(text):,} characters)"
    return validated("Formula", f"`{shown}`", says, spec=f"formula = '''{text}'''\n", fits=fits)


def _sparse(path: Path) -> None:
    """Write 100 MB of NUL characters, which take no room on disk."""
    with path.open("wb") as file:
        file.write(PLAIN.encode())
        file.truncate(HUGE)


MODELS = [
    _model("an empty file", "formula: got nothing", ""),
    _model("a file of 100 MB, refused by its size", "got more than 262144 bytes", _sparse),
    _model("a file that is not UTF-8", "not UTF-8", b"formula = '\xff'"),
    _model("invalid TOML", "invalid TOML", "formula = "),
    _model("a key twice", "invalid TOML", "formula = 'y ~ x'\nformula = 'y ~ z'\n"),
    _model("a value nested 100,000 deep", "too deep", "a = " + "[" * 100_000),
    _model("a number of 5,000 digits", "too long", "a = " + "9" * 5000),
    _model("a key of 50,000 parts", "more than 200 dots", ".".join("a" * 50_000) + " = 1"),
    _model("1,000 unknown keys", "more than 20 problems", "\n".join(f"k{i} = 1" for i in range(1000))),
    _model("a misspelled key", "Did you mean 'formula'?", "formla = 'y ~ x'\n"),
    _model("a number in place of the formula", "formula: got 3", "formula = 3\n"),
    _model("another schema", "schema: got 2; expected 1", "schema = 2\n" + PLAIN),
    _model("a name that is a path", "name: got '../../etc/passwd'", "name = '../../etc/passwd'\nformula = 'y ~ x'\n"),
    _model("a path of weights", "weights.kind: got '/etc/passwd'", PLAIN + "[weights]\nkind = '/etc/passwd'\n"),
    _model("a table that runs something", "got '__target__'", PLAIN + "[__target__]\nos = 'system'\n"),
    _model("growth backwards", "expected from < to", GROWTH.replace("2018", "2031"), data=economy()),
    _model("measures without [cells]", "expected [cells]", GROWTH[: GROWTH.index("cells")], data=economy()),
    _model("spatial effects of clusters", "expected 'iid' but for 'region'",
           GROWTH + '[groups.cluster]\nstructure = "icar"\n', data=economy()),
    _model("a lag of the response in a model of counts", "family: got 'poisson'",
           SAR + "[likelihood]\nfamily = 'poisson'\n"),
    _model("zeros for what has no log", "expected what the formula takes a log of",
           PLAIN + "[zeros]\nx = 'drop'\n"),
    _prior("a prior that is a function of a library", "got 'pymc.Normal'",
           "x = { distribution = 'pymc.Normal', mean = 0, sd = 1 }"),
    _prior("a prior sd of 0", "priors.x.sd: got 0", "x = { distribution = 'normal', mean = 0, sd = 0 }"),
    _prior("a prior mean of NaN", "priors.x.mean: got nan", "x = { distribution = 'normal', mean = nan, sd = 1 }"),
    _prior("a prior for an unknown parameter", "expected a parameter of this model",
           "w = { distribution = 'normal', mean = 0, sd = 1 }"),
    _prior("rho in (-2, 2)", "priors.rho: got uniform(-2, 2); expected bounds in -1 to 1",
           "rho = { distribution = 'uniform', lower = -2.0, upper = 2.0 }", SAR, weights_csv=ring()),
    _prior("rho in (-1, 1)", "Sample: 12 rows",
           "rho = { distribution = 'uniform', lower = -1.0, upper = 1.0 }", SAR, weights_csv=ring(), fits=True),
    _prior("lambda in (-5, -1.5)", "priors.lambda: got uniform(-5, -1.5)",
           "lambda = { distribution = 'uniform', lower = -5.0, upper = -1.5 }", SAR.replace("sar", "sem"),
           weights_csv=ring()),
    _prior("a flat rho", "priors.rho: got flat()", "rho = { distribution = 'flat' }", SAR, weights_csv=ring()),
    _prior("phi of BYM2 in (-3, 3)", "expected bounds in 0 to 1",
           "'phi(region)' = { distribution = 'uniform', lower = -3.0, upper = 3.0 }",
           ICAR + "structure = 'bym2'\n", weights_csv=ring()),
    _prior("alpha of CAR in (-3, 3)", "expected bounds in 0 to 1",
           "'alpha(region)' = { distribution = 'uniform', lower = -3.0, upper = 3.0 }",
           ICAR + "structure = 'car'\n", weights_csv=ring()),
    _prior("a share in (-3, 3)", "expected bounds from 0 to 1",
           "'size.share' = { distribution = 'uniform', lower = -3.0, upper = 3.0 }",
           GROWTH + "likelihood = { scale = 'size' }\n", data=economy()),
    _prior("a negative standard deviation", "lower of at least 0",
           "sigma = { distribution = 'uniform', lower = -1.0, upper = 1.0 }"),
    _model("--set of a key that is not there", "Did you mean 'formula'?", PLAIN, "--set", "formul=3"),
    _model("--set below a value", "a key inside a table", PLAIN, "--set", "name.x=1"),
    _model("--set without a value", "expected KEY=VALUE", PLAIN, "--set", "name"),
]  # fmt: skip

FORMULAS = [
    _formula("y ~ ln(x)", "Use log."),
    _formula("y = x", "Write ~ between the response and the terms"),
    _formula("y ~ x + nothing", "got no variable 'nothing'"),
    _formula("nothing ~ x", "got no variable 'nothing'"),
    _formula("y ~ x + (1 | nothing)", "It is not a dimension to group by"),
    _formula("y ~ x + (1 | industry)", "got rows without 'industry'"),
    _formula("y ~ x + (1 | region)", "its effect is the noise by another name"),
    _formula("y ~ __import__(x)", "Unexpected character: _"),
    _formula("y ~ import__(x)", "There is no function 'import__'"),
    _formula("y ~ __import__('os').system('true')", "a formula runs no code"),
    _formula("y ~ x.__class__.__mro__", "a formula runs no code"),
    _formula("y ~ {x + 1}", "a formula runs no code"),
    _formula("y ~ I(x)", "There is no function 'I'"),
    _formula("y ~ np.log(x)", "a formula runs no code"),
    _formula("y ~ exec(x)", "There is no function 'exec'"),
    _formula("y ~ log(x, z)", "a formula runs no code"),
    _formula("y ~ log()", "takes exactly one argument"),
    _formula("y ~ log(x)", "log(x): got values outside its domain"),
    _formula("y ~ x + y", "A lag of the response is an outcome process"),
    _formula("y ~ 0", "There is nothing to estimate"),
    _formula("y", "A formula needs a response"),
    _formula("y ~ x ~ z", "expected 'response ~ terms'"),
    _formula("y ~ x:x", "A factor repeats"),
    _formula("y ~ x ** 2", "Write every interaction"),
    _formula("y ~ x -- z", "Only the intercept can be removed"),
    _formula("y ~ " + "(" * 500 + "x" + ")" * 500, "nested deeper than 16"),
    _formula("y ~ " + " + ".join(f"x{i}" for i in range(100)), "at most 64 are allowed"),
    _formula("y ~ " + "x" * 10**5, "at most 4096 fit"),
    _formula("y ~ x\x00", "Found invalid character"),
    _formula("y ~ x*z + x", "Columns: 'x', 'z', 'x:z'", fits=True),
]  # fmt: skip
