"""The closed formula grammar: what it gives, and what it refuses."""

import re

import pytest

from spatialclusters.errors import SpecError
from spatialclusters.formula import Call, Group, Term, Variable, parse_formula


def labels(text):
    return [str(term) for term in parse_formula(text).terms]


def test_parts_of_a_growth_formula():
    formula = parse_formula(
        "growth ~ log(cluster_level) + lag(log(x))\n + (1 | region)"
        " + (1 + log(cluster_level) | cluster)"
    )
    level = Term((Call("log", Variable("cluster_level")),))
    assert formula.response == "growth"
    assert formula.intercept
    assert formula.terms == (level, Term((Call("lag", Call("log", Variable("x"))),)))
    assert formula.groups == (Group(("region",), True, ()), Group(("cluster",), True, (level,)))
    assert formula.variables == ("cluster_level", "x")
    assert "\n" not in formula.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("y ~ a:b + b:a", ["a:b"]),
        ("y ~ b:a + a:b + a", ["b:a", "a"]),
        ("y ~ a*b", ["a", "b", "a:b"]),
        ("y ~ a*b*c", ["a", "b", "a:b", "c", "a:c", "b:c", "a:b:c"]),
        ("y ~ (a + b):log(c)", ["a:log(c)", "b:log(c)"]),
        ("y ~ a + a", ["a"]),
        ("y ~ log(lag(x))", ["log(lag(x))"]),
        ("y ~ 1", []),
    ],
)
def test_terms(text, expected):
    assert labels(text) == expected


@pytest.mark.parametrize(
    ("text", "intercept"),
    [
        ("y ~ x", True),
        ("y ~ 1 + x", True),
        ("y ~ 0 + x", False),
        ("y ~ x + 0", False),
        ("y ~ -1 + x", False),
        ("y ~ x - 1", False),
        ("y ~ x + -1", False),
    ],
)
def test_intercept(text, intercept):
    formula = parse_formula(text)
    assert formula.intercept is intercept
    assert [str(term) for term in formula.terms] == ["x"]


def test_groups_follow_the_order_of_the_panel():
    (group,) = parse_formula("y ~ (1 | cluster:region)").groups
    assert group.name == "region:cluster"
    (group,) = parse_formula("y ~ x + (0 + x | year:industry)").groups
    assert (group.name, group.intercept) == ("industry:year", False)


def test_group_terms_of_one_factor_are_merged():
    (group,) = parse_formula("y ~ x + (1 | cluster) + (0 + x | cluster)").groups
    assert str(group) == "(1 + x | cluster)"
    with pytest.raises(SpecError, match="repeats a column"):
        parse_formula("y ~ x + (1 | cluster) + (x | cluster)")
    with pytest.raises(SpecError, match="repeats a column"):
        parse_formula("y ~ (a:b | cluster) + (0 + b:a | cluster)")


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("y ~ __import__('os').system('true')", "__import__"),
        ("y ~ pd.io.common.os.system('ls')", "pd.io.common.os.system"),
        ("y ~ x.__class__", "x.__class__"),
        ("y ~ log(x.__class__)", "x.__class__"),
        ("y ~ __class__", "__class__"),
        ("y ~ {x}", "{x}"),
        ("y ~ `a b`", "`a"),
        ("y ~ `a", "`a"),
        ("y ~ I(x)", "I(x)"),
        ("y ~ eval(x)", "eval(x)"),
        ("y ~ Log(x)", "Did you mean 'log'"),
        ("y ~ log(x=1)", "log(x=1)"),
        ("y ~ log(x, z)", "log(x,"),
        ("y ~ log()", "log()"),
        ("y ~ log(1)", "got '1'"),
        ("y ~ log(x + z)", "x + z"),
        ("y ~ log(x:z)", "x : z"),
        ("y ~ log(x)(z)", "log(x)(z)"),
        ("y ~ log((1 | region))", "1 | region"),
        ("y ~ 'x'", "'x'"),
        ("y ~ x['a']", "x['a']"),
        ("y ~ x ** 2", "**"),
        ("y ~ x * * 2", "* *"),
        ("y ~ x / z", "/"),
        ("y ~ 2 + x", "got '2'"),
        ("y ~ 2.5", "2.5"),
        ("y ~ True", "True"),
        ("y ~ \N{SUPERSCRIPT TWO}", "got '\N{SUPERSCRIPT TWO}'"),
        ("y ~ x\x00", r"x\x00"),
        ("y ~ x\u2028+ z", r"\u2028"),
        ("y ~ \u202ex", r"\u202e"),
        ("y ~ -x", "-x"),
        ("y ~ z - x", "- x"),
        ("y ~ x - 0", "- 0"),
        ("y ~ 1:x", "got '1'"),
        ("y ~ a:b:c:d", "a:b:c:d"),
        ("y ~ a*b*c*d", "a:b:c:d"),
        ("y ~ a:a", "a:a"),
        ("y ~ 0 + x - 1 + 1", "state one"),
        ("y ~ 0", "nothing to estimate"),
        ("y ~ y", "outcome process"),
        ("y ~ lag(y)", "outcome process"),
        ("y ~ region", "(1 | region)"),
        ("y ~ log(year)", "(1 | year)"),
        ("y ~ (1 + year | cluster)", "(1 | year)"),
        ("y ~ (1 || region)", "||"),
        ("y ~ (1 | region | year)", "1 | region"),
        ("y ~ (1 | regoin)", "Did you mean 'region'"),
        ("y ~ (1 | region:region)", "region : region"),
        ("y ~ (1 | region + year)", "region + year"),
        ("y ~ (0 | region)", "0 | region"),
        ("y ~ ((1 | year) | region)", "varies an intercept or slopes"),
        ("y ~ x:(1 | region)", "1 | region"),
        ("y ~ x | region", "| region"),
        ("y ~ x z", "got 'z'"),
        ("log(y) ~ x", "log(y)"),
        ("region ~ x", "region"),
        ("(y ~ x)", "(y ~ x)"),
        ("y ~ x ~ z", "~"),
        ("~ x", "~ x"),
        ("y ~", "y ~"),
        ("y", "got 'y'"),
        ("", "got ''"),
        ("y ~ (x", "(x"),
        ("y ~ x)", "got ')'"),
    ],
)
def test_everything_else_is_refused_and_quoted(text, quoted):
    with pytest.raises(SpecError) as error:
        parse_formula(text)
    message = str(error.value)
    assert message.startswith("formula: got ")
    assert "; expected " in message
    assert quoted in message.replace("\\\\", "\\")
    assert message.isprintable()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("y ~ " + "x" * 100_000, "100004 characters"),
        ("y ~ " + "x" * 4093, "4097 characters"),
        ("y ~ " + "(" * 5000 + "x" + ")" * 5000, "characters"),
        ("y ~ " + "(" * 2000 + "x" + ")" * 2000, "nested deeper than 16"),
        ("y ~ " + "(" * 17 + "x" + ")" * 17, "nested deeper than 16"),
        # or, where another library has raised the limit of recursion, refused for what it is
        ("y ~ " + "-" * 4000 + "1", r"too long or too deeply nested|got '---"),
        ("y ~ " + ":".join(["x"] * 2000), "too long or too deeply nested|got 'x:x'"),
        ("y ~ " + "1" * 4000, "got '1111"),
        ("y ~ " + " + ".join(f"x{i}" for i in range(65)), "65 terms"),
        ("y ~ x0 + (" + " + ".join(f"x{i}" for i in range(63)) + " | region)", "65 terms"),
        ("y ~ (a+b+c+d+e+f+g+h+i)*(j+k+l+m+n+o+p+q)", "over 64 terms"),
    ],
)
def test_limits(text, problem):
    with pytest.raises(SpecError) as error:
        parse_formula(text)
    assert re.search(problem, str(error.value))
    assert len(str(error.value)) < 700


def test_limits_are_inclusive():
    assert len(parse_formula("y ~ " + " + ".join(f"x{i}" for i in range(64))).terms) == 64
    assert labels("y ~ " + "(" * 16 + "x" + ")" * 16) == ["x"]
    assert len(parse_formula("y ~ " + "x" * 4092).terms) == 1
