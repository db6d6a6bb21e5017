"""Whatever the text, the formula parser gives a formula or a SpecError."""

import string

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from spatialclusters.errors import SpecError
from spatialclusters.formula import DIMS, FUNCTIONS, parse_formula

FUZZ = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)
PIECES = st.sampled_from(
    [*"()+-*:|~/{}[]`'\",.=<>!% 012", *FUNCTIONS, *DIMS, "x", "y ~ ", "(1 | ", "x.y", "\x00", "²"]
)


def parsed(text):
    try:
        return parse_formula(text)
    except SpecError as error:
        message = str(error)
    assert message.startswith("formula: got ")
    assert "; expected " in message
    return None


@FUZZ
@given(st.text(max_size=300))
def test_any_text(text):
    parsed(text)
    parsed(f"y ~ {text}")


@FUZZ
@given(st.text(alphabet=string.printable, max_size=300))
def test_any_printable_text(text):
    parsed(f"y ~ x + {text}")


@FUZZ
@given(st.lists(PIECES, max_size=40).map("".join))
def test_text_made_of_the_grammars_pieces(text):
    parsed(text)
    parsed(f"y ~ {text}")


def expressions():
    calls = st.sampled_from(FUNCTIONS)
    return st.recursive(
        st.sampled_from(["x", "z", "w"]),
        lambda inner: st.builds("{}({})".format, calls, inner),
        max_leaves=3,
    )


def sums():
    products = st.builds("{}{}{}".format, expressions(), st.sampled_from(":*"), expressions())
    return st.lists(st.one_of(expressions(), products), min_size=1, max_size=4).map(" + ".join)


def groups():
    factors = st.lists(st.sampled_from(DIMS), min_size=1, max_size=3, unique=True).map(":".join)
    return st.builds("({} + {} | {})".format, st.sampled_from("01"), sums(), factors)


@FUZZ
@given(sums(), st.lists(groups(), max_size=2), st.sampled_from(["1", "0", "-1"]))
def test_canonical_text_parses_to_the_same_formula(terms, grouped, intercept):
    formula = parsed(" + ".join(["y ~ " + intercept, terms, *grouped]))
    assume(formula is not None)
    again = parse_formula(str(formula))
    assert str(again) == str(formula)
    assert (again.terms, again.groups) == (formula.terms, formula.groups)
    assert again.intercept is (intercept == "1")
    assert len({frozenset(term.factors) for term in formula.terms}) == len(formula.terms)
    assert all(
        group.factor == tuple(sorted(group.factor, key=DIMS.index)) for group in again.groups
    )
