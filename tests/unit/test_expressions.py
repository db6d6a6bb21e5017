"""Terms to numbers: zero rules, domains and lags, by hand."""

import math

import numpy as np
import pytest
from scipy import sparse

from spatialclusters.errors import SpecError
from spatialclusters.expressions import Evaluator, sample_mask
from spatialclusters.formula import parse_formula

RELATIVE = 1e-14  # one or two library functions per number

X = np.array([0.0, 0.5, 4.0, 2.0])
Z = np.array([1.0, -2.0, 3.0, 5.0])
W = np.array([[0.0, 1.0, 0.0, 0.0], [0.5, 0.0, 0.5, 0.0], [0.0, 2.0, 0.0, 0.0], [0.0] * 4])


def evaluate(text, *, zeros=None, lag=W, **variables):
    """Label and column of a single term, and the dummies it left."""
    given = {"x": X, "z": Z} | variables
    evaluator = Evaluator(given, zeros or {}, None if lag is None else sparse.csr_array(lag))
    (term,) = parse_formula(f"y ~ {text}").terms
    label, values = evaluator.term(term)
    return label, values, evaluator.dummies


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("z", [1.0, -2.0, 3.0, 5.0]),
        ("log1p(x)", [0.0, math.log(1.5), math.log(5.0), math.log(3.0)]),
        ("asinh(z)", [math.asinh(v) for v in (1.0, -2.0, 3.0, 5.0)]),
        ("center(x)", [-1.625, -1.125, 2.375, 0.375]),
        ("x:z", [0.0, -1.0, 12.0, 10.0]),
        ("center(x):log1p(x)", [0.0, -1.125 * math.log(1.5), 2.375 * math.log(5.0), 0.375 * math.log(3.0)]),
        ("lag(z)", [-2.0, 2.0, -4.0, 0.0]),
        ("lag(lag(z))", [2.0, -3.0, 4.0, 0.0]),
        ("lag(asinh(z))", [math.asinh(-2.0), (math.asinh(1.0) + math.asinh(3.0)) / 2, 2 * math.asinh(-2.0), 0.0]),
    ],
)  # fmt: skip
def test_terms(text, expected):
    label, values, dummies = evaluate(text)
    assert label == text
    np.testing.assert_allclose(values, expected, rtol=RELATIVE)
    assert dummies == {}


LOGS = {
    "minimum-and-dummy": (
        "log(x)",
        [math.log(0.5), math.log(0.5), math.log(4.0), math.log(2.0)],
        {"zero(x)": [1.0, 0.0, 0.0, 0.0]},
    ),
    "asinh": (
        "asinh(x)",
        [0.0, math.log(0.5 + math.sqrt(1.25)), math.log(4 + math.sqrt(17)), math.log(2 + math.sqrt(5))],
        {},
    ),
    "log1p": ("log1p(x)", [0.0, math.log(1.5), math.log(5.0), math.log(3.0)], {}),
}  # fmt: skip


@pytest.mark.parametrize("rule", list(LOGS))
def test_zero_rules(rule):
    label, values, dummies = evaluate("log(x)", zeros={"x": rule})
    expected_label, expected, expected_dummies = LOGS[rule]
    assert label == expected_label
    np.testing.assert_allclose(values, expected, rtol=RELATIVE, atol=0.0)
    assert {name: column.tolist() for name, column in dummies.items()} == expected_dummies


@pytest.mark.parametrize("rule", list(LOGS))
def test_zero_rules_inside_a_lag(rule):
    label, values, dummies = evaluate("lag(log(x))", zeros={"x": rule})
    expected_label, logs, expected_dummies = LOGS[rule]
    expected = [logs[1], (logs[0] + logs[2]) / 2, 2 * logs[1], 0.0]
    assert label == f"lag({expected_label})"
    np.testing.assert_allclose(values, expected, rtol=RELATIVE)
    assert {name: column.tolist() for name, column in dummies.items()} == expected_dummies


def test_a_log_of_a_lag_has_a_rule_of_its_own():
    # W x = 0.5, 2, 1, 0: the last row has no neighbor
    label, values, dummies = evaluate("log(lag(x))", zeros={"lag(x)": "minimum-and-dummy"})
    assert label == "log(lag(x))"
    expected = [math.log(0.5), math.log(2.0), 0.0, math.log(0.5)]
    np.testing.assert_allclose(values, expected, rtol=RELATIVE)
    assert dummies["zero(lag(x))"].tolist() == [0.0, 0.0, 0.0, 1.0]
    with pytest.raises(SpecError, match=r"log\(lag\(x\)\): got 1 zeros .* a lag"):
        evaluate("log(lag(x))", zeros={"lag(x)": "drop"})
    with pytest.raises(SpecError, match=r"1 zeros in 4 rows.*\[zeros\] lag\(x\)"):
        evaluate("log(lag(x))", zeros={"x": "asinh"})


@pytest.mark.parametrize("rule", ["asinh", "log1p"])
def test_a_rule_holds_without_a_zero_too(rule):
    label, values, _ = evaluate("log(x)", zeros={"x": rule}, x=X + 1.0)
    function = {"asinh": math.asinh, "log1p": math.log1p}[rule]
    assert label == f"{rule}(x)"
    np.testing.assert_allclose(values, [function(v) for v in (1.0, 1.5, 5.0, 3.0)], rtol=RELATIVE)


def test_no_dummy_without_a_zero():
    label, values, dummies = evaluate("log(x)", zeros={"x": "minimum-and-dummy"}, x=X + 1.0)
    assert (label, dummies) == ("log(x)", {})
    np.testing.assert_allclose(values, [math.log(v) for v in (1.0, 1.5, 5.0, 3.0)], rtol=RELATIVE)


def test_a_log_without_zeros_needs_no_rule():
    label, values, _ = evaluate("log(x)", x=X + 1.0)
    assert label == "log(x)"
    np.testing.assert_allclose(values, [math.log(v) for v in (1.0, 1.5, 5.0, 3.0)], rtol=RELATIVE)


def test_a_zero_without_a_rule_is_an_error_that_says_all():
    with pytest.raises(SpecError) as caught:
        evaluate("log(x)", x=np.array([0.0, 0.0, 1.0, 2.0]))
    message = str(caught.value)
    for part in (
        "log(x)",
        "2 zeros in 4 rows",
        "[zeros] x",
        "'drop'",
        "'minimum-and-dummy'",
        "'asinh'",
        "'log1p'",
        "--set zeros.x=",
    ):
        assert part in message, (part, message)


@pytest.mark.parametrize("rule", [None, "drop", "minimum-and-dummy", "asinh", "log1p"])
def test_a_log_of_a_negative_number_is_an_error(rule):
    with pytest.raises(
        SpecError, match=r"log\(z\): got values outside its domain in 1 rows \('1'\)"
    ):
        evaluate("log(z)", zeros={"z": rule} if rule else {})


def test_log1p_ends_at_minus_one():
    with pytest.raises(SpecError, match=r"log1p\(z\).*2 rows \('1', '2'\).*above -1"):
        evaluate("log1p(z)", z=np.array([0.0, -1.0, -2.0, 3.0]))
    _, values, _ = evaluate("log1p(z)", z=np.full(4, -0.5))
    np.testing.assert_allclose(values, math.log(0.5), rtol=RELATIVE)


def test_nothing_but_zeros_has_no_smallest_positive_value():
    with pytest.raises(SpecError, match="nothing but zeros"):
        evaluate("log(x)", zeros={"x": "minimum-and-dummy"}, x=np.zeros(4))


def test_a_lag_needs_weights():
    with pytest.raises(SpecError, match=r"no weights; expected some"):
        evaluate("lag(x)", lag=None)


def test_an_unknown_variable():
    with pytest.raises(SpecError, match=r"no variable 'incom'.*Did you mean 'income'\?"):
        evaluate("log(incom)", income=X)


def test_the_variables_are_not_changed():
    x, z = X.copy(), Z.copy()
    for text in ("log(x)", "center(x)", "x", "x:z", "lag(x)"):
        _, values, _ = evaluate(text, zeros={"x": "minimum-and-dummy"}, x=x, z=z)
        values += 1.0
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(z, Z)


# --- which rows can enter ---------------------------------------------------------------------


def test_rows_are_lost_to_the_first_reason():
    nan = np.nan
    variables = {
        "a": np.array([0.0, nan, 0.0, 3.0, 4.0, 5.0]),
        "b": np.array([nan, nan, 1.0, nan, 0.0, 1.0]),
        "c": np.array([1.0, 1.0, 1.0, 1.0, 0.0, 0.0]),
    }
    formula = parse_formula("y ~ log(a) + log(b) + c")
    keep, reasons = sample_mask(formula, variables, {"a": "drop", "b": "asinh", "c": "drop"})
    assert keep.tolist() == [False, False, False, False, True, True]
    assert list(reasons.items()) == [("a unknown", 1), ("a zero", 2), ("b unknown", 1)]


@pytest.mark.parametrize(
    "text", ["log(x)", "lag(log(x))", "center(log(x))", "log(x):z", "z + z:lag(center(log(x)))"]
)
def test_zeros_are_dropped_wherever_the_log_is(text):
    keep, reasons = sample_mask(parse_formula(f"y ~ {text}"), {"x": X, "z": Z}, {"x": "drop"})
    assert keep.tolist() == [False, True, True, True]
    assert reasons == {"x zero": 1}


@pytest.mark.parametrize("text", ["x", "log1p(x)", "asinh(x)", "log(lag(x))", "x + log(z)"])
def test_zeros_stay_where_no_log_is_taken_of_them(text):
    keep, reasons = sample_mask(
        parse_formula(f"y ~ {text}"), {"x": X, "z": np.ones(4)}, {"x": "drop"}
    )
    assert keep.all()
    assert reasons == {}
