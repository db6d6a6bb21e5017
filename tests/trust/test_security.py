"""Nothing that a user types or a file holds is ever run, and nothing asks the network."""

import ast
import contextlib
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import spatialclusters as sc
from spatialclusters.errors import SpecError
from spatialclusters.formula import parse_formula
from spatialclusters.spec import override, parse_spec

PACKAGE = Path(sc.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
# in the package's own sources, never
BANNED_IMPORTS = {
    "pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "jsonpickle", "yaml", "ruamel",
    "code", "codeop", "runpy", "imp", "ctypes", "cffi", "socket", "ssl", "http", "ftplib", "smtplib",
    "requests", "httpx", "aiohttp", "fsspec", "zipimport", "xml", "lxml", "formulaic",
}  # fmt: skip
BANNED_NAMES = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "input",
    "breakpoint",
    "globals",
    "vars_from",
}
BANNED_CALLS = {
    "read_pickle",
    "to_pickle",
    "import_module",
    "exec_module",
    "system",
    "popen",
    "design_matrices",
    "model_matrix",
}
# what runs Python in a formula, starts programs, renders or downloads, and where alone it may be
ALONE = {
    "formulae": {"formula.py"}, "pyfixest": {"regressions.py"}, "subprocess": {"sampling.py"},
    "jinja2": {"build.py", "markup.py"}, "pooch": {"downloads.py"}, "urllib": {"downloads.py"},
}  # fmt: skip
RUNNING = (
    "y ~ __import__('pathlib').Path('{0}').touch()",
    "y ~ {{open('{0}', 'w')}}",
    "y ~ I(open('{0}', 'w'))",
    "y ~ x + C(x, levels=open('{0}', 'w'))",
    "y ~ np.load('{0}')",
    "y ~ (lambda: 0).__globals__",
    "y ~ x | f0 | y ~ exec(x)",
    "y ~ `__import__('os')`",
    "y ~ Q('x')",
    "y ~ bs(x, df=open('{0}', 'w'))",
    "y ~ log(__import__('os'))",
    "y ~ x[0]",
    "y ~ x if 1 else z",
    "y ~ f'{{x}}'",
)  # fmt: skip


def nodes(path):
    return ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def imported(node):
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


def banned(path):
    """Everything in a module that must not be there, in words."""
    for node in nodes(path):
        for name in imported(node):
            if any(name == bad or name.startswith(f"{bad}.") for bad in BANNED_IMPORTS):
                yield f"imports {name}"
            top = name.partition(".")[0]
            if path.name not in ALONE.get(top, {path.name}):
                yield f"imports {name}, which only {ALONE[top]} may"
        if isinstance(node, ast.Name) and node.id in BANNED_NAMES:
            yield f"uses {node.id}"
        if not isinstance(node, ast.Call):
            continue
        called = (
            node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        )
        keywords = {word.arg: word.value for word in node.keywords}
        first = node.args[0] if node.args else None
        if called in BANNED_CALLS:
            yield f"calls {called}"
        receiver = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
        evaluated = called == "eval" and isinstance(node.func, ast.Attribute)
        if evaluated or (
            called == "query"
            and not receiver.endswith(("tree", "sindex"))  # of points
            and not isinstance(first, ast.Constant)
        ):
            yield f"calls .{called}() with what is not in the source"
        if (
            called == "load"
            and ast.unparse(node.func) == "np.load"
            and ast.unparse(keywords.get("allow_pickle", ast.Constant(True))) != "False"
        ):
            yield "np.load without allow_pickle=False"
        if "shell" in keywords:
            yield "a shell"
        if (
            called == "Environment"
            and ast.unparse(keywords.get("autoescape", ast.Constant(False))) != "True"
        ):
            yield "a template without escaping"
        if called == "Markup" and not (
            isinstance(first, ast.Constant)
            or "style.css" in ast.unparse(node)
            or ast.unparse(node).startswith("Markup(escape(")
        ):
            yield "markup that is not in the source"


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(PACKAGE)) for path in MODULES])
def test_no_module_runs_what_it_is_given(path):
    assert list(banned(path)) == []


@pytest.mark.parametrize(
    "source",
    ["import pickle", "from yaml import load", "eval('1')", "x.eval(y)", "np.load(path)", "import urllib.request",
     "subprocess.run(x, shell=True)", "import pyfixest", "Markup(label)", "pd.read_pickle(x)", "frame.query(text)",
     "import importlib; importlib.import_module(name)", "Environment()", "__import__('os')"],
)  # fmt: skip
def test_the_walk_sees_what_it_looks_for(source, tmp_path):
    path = tmp_path / "module.py"
    path.write_text(source)
    assert len(list(banned(path))) == 1


def test_formulae_is_used_to_parse_only():
    names = {
        (node.module, alias.name)
        for node in nodes(PACKAGE / "formula.py")
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("formulae")
        for alias in node.names
    }
    assert names == {
        ("formulae.parser", "ParseError"), ("formulae.parser", "Parser"),
        ("formulae.scanner", "ScanError"), ("formulae.scanner", "Scanner"),
    }  # fmt: skip


def test_templates_escape_everything():
    text = (PACKAGE / "reporting" / "template.html").read_text(encoding="utf-8")
    assert "|safe" not in text.replace(" ", "")
    assert "autoescape false" not in text
    assert "<script" not in text


@pytest.mark.parametrize("text", RUNNING)
def test_formulas_that_other_libraries_would_run(text, tmp_path):
    marker = tmp_path / "ran"
    formula = text.format(marker)
    with pytest.raises(SpecError):
        parse_formula(formula)
    with pytest.raises(SpecError):
        parse_spec(f"formula = {json.dumps(formula)}")
    with pytest.raises(SpecError):
        override(parse_spec('formula = "y ~ x"'), {"formula": formula})
    assert not marker.exists()


@pytest.mark.parametrize("text", ["y ~ os.mkdir('{0}')", "y ~ os.makedirs('{0}')"])
def test_and_they_do_run_it(text, tmp_path):
    """The danger is real: the library whose parser we use would have run this."""
    import os  # noqa: F401  the formula names it

    import formulae
    import pandas as pd

    marker = tmp_path / "ran"
    with contextlib.suppress(ValueError):  # that what was run returned no column
        formulae.design_matrices(  # noqa: TID251
            text.format(marker), pd.DataFrame({"y": [1.0, 2.0]})
        )
    assert marker.exists()
    marker.rmdir()
    with pytest.raises(SpecError):
        parse_formula(text.format(marker))
    assert not marker.exists()


@pytest.mark.parametrize(
    "text",
    ["[priors]\nx = { distribution = 'os.system' }", "[priors]\nx = { distribution = 'normal', mean = 'os.getcwd()', sd = 1 }",
     "[likelihood]\nfamily = 'pymc.distributions.Normal'", "[spatial]\noutcome = 'spatialclusters.processes.Outcome'",
     "[weights]\nkind = 'os:system'", "[groups.region]\nstructure = '!!python/object/apply:os.system'",
     "_target_ = 'os.system'", "[cells]\nabsent = 'builtins.exec'\nwithheld = 'zero'"],
)  # fmt: skip
def test_no_dotted_path_of_a_model_file_is_followed(text):
    head, _, tail = text.partition("[")
    with pytest.raises(SpecError):
        parse_spec(f"{head}\nformula = 'y ~ x + (1 | region)'\n{_ and '['}{tail}")


WATCHED = """
    import sys, json
    from pathlib import Path
    import spatialclusters as sc
    from spatialclusters.cli import main
    from spatialclusters.datasets import simulated_economy
    from tests.trust.made import REGIONS, SAR, made_up_fit
    from tests.trust.test_security import RUNNING

    folder = Path(sys.argv[1])

    def work(texts):
        for text in texts:
            path = folder / 'model.toml'
            path.write_text(f'formula = {json.dumps(text)}')
            assert main(['models', 'show', str(path)]) == 2
        fit = made_up_fit(f'title = {json.dumps(texts[0])}\\n{SAR}', regions=texts[:12])
        fit.save(folder / 'fit.nc')
        fit = sc.load_fit(folder / 'fit.nc')
        sc.fit_frequentist(fit), sc.impacts(fit), sc.coefficients(fit), sc.check(fit)
        sc.write_report(fit, path=folder / 'fit.html')
        fit.tree.attrs['model'] = f'formula = {json.dumps(texts[1])}'
        sc.Fit(fit.tree).save(folder / 'fit.nc')
        assert main(['report', str(folder / 'fit.nc'), '-o', str(folder / 'other.html')]) == 2
        sc.us_income(), simulated_economy()

    # once before, so that libraries have done what they do when they are first used
    work([f'y ~ {region}.x' for region in REGIONS])
    seen = []
    def watch(event, arguments):
        if event in ('compile', 'exec', 'import', 'os.system', 'subprocess.Popen', 'socket.connect',
                     'socket.getaddrinfo', 'urllib.Request', 'pickle.find_class', 'ctypes.dlopen', 'open'):
            seen.append((event, str(arguments)[:100_000]))
    sys.addaudithook(watch)
    work([text.format(folder / 'ran') for text in RUNNING])
    print(json.dumps(seen))
"""


def test_an_audit_of_hostile_inputs(tmp_path):
    """Python itself says what was compiled, run, opened and connected to meanwhile."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WATCHED), str(tmp_path)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    events = json.loads(done.stdout.splitlines()[-1])
    assert not (tmp_path / "ran").exists()
    kinds = {event for event, _ in events}
    assert "open" in kinds  # the hook was there
    assert not kinds & {
        "os.system", "subprocess.Popen", "socket.connect", "socket.getaddrinfo", "urllib.Request", "pickle.find_class",
    }  # fmt: skip
    for event, arguments in events:
        assert str(tmp_path / "ran") not in arguments, (event, arguments[:200])
    written = [
        a for event, a in events if event == "open" and ("'w" in a or "'x" in a or "'a" in a)
    ]
    outside = [a for a in written if str(tmp_path) not in a]
    assert outside == []
