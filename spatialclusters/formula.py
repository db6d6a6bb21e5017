"""The closed formula grammar, in lme4's notation.

The scanner and parser of formulae build a syntax tree and evaluate nothing. The tree is walked
with an allow-list and becomes frozen values of our own; whatever is not allowed is a SpecError.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from spatialclusters.errors import SpecError, listing, suggestion

__all__ = [
    "DIMS",
    "FUNCTIONS",
    "Call",
    "Expression",
    "Formula",
    "Group",
    "Term",
    "Variable",
    "parse_formula",
]

DIMS = ("region", "industry", "cluster", "year")
FUNCTIONS = ("log", "log1p", "asinh", "lag", "center")
MAX_CHARACTERS, MAX_DEPTH, MAX_TERMS, MAX_ORDER = 4096, 16, 64, 3

_ALLOWED = (
    "'response ~ terms' made of 1, 0, -1, names of letters, digits and _, "
    f"{', '.join(FUNCTIONS)} of one name, the operators + : *, and (terms | group) "
    f"with a group of {', '.join(DIMS)} or a:b of them"
)
_SYNONYMS = {"ln": "log", "loge": "log", "ihs": "asinh"}
_FOREIGN = re.compile(r"[^A-Za-z0-9_ \t\r\n~+*:|()-]")


@dataclass(frozen=True, slots=True)
class Variable:
    """A panel variable, by name."""

    name: str

    def __str__(self) -> str:
        return self.name

    @property
    def variable(self) -> str:
        """Name of the panel variable."""
        return self.name


@dataclass(frozen=True, slots=True)
class Call:
    """One of the allowed functions of a variable or of another call."""

    function: str
    argument: Expression

    def __str__(self) -> str:
        return f"{self.function}({self.argument})"

    @property
    def variable(self) -> str:
        """Name of the panel variable inside all calls."""
        return self.argument.variable


type Expression = Variable | Call


@dataclass(frozen=True, slots=True)
class Term:
    """One column of the design: an expression, or the product of up to three."""

    factors: tuple[Expression, ...]

    def __str__(self) -> str:
        return ":".join(str(factor) for factor in self.factors)


@dataclass(frozen=True, slots=True)
class Group:
    """Effects that vary between the levels of a factor: ``(1 + slopes | factor)``."""

    factor: tuple[str, ...]
    intercept: bool
    slopes: tuple[Term, ...]

    @property
    def name(self) -> str:
        """Label of the factor, its dims in the order of the panel: ``region:cluster``."""
        return ":".join(self.factor)

    def __str__(self) -> str:
        columns = [str(int(self.intercept)), *map(str, self.slopes)]
        return f"({' + '.join(columns)} | {self.name})"


@dataclass(frozen=True, slots=True)
class Formula:
    """A parsed formula; ``str()`` gives its canonical text, which parses to the same parts."""

    text: str
    response: str
    intercept: bool
    terms: tuple[Term, ...]
    groups: tuple[Group, ...]

    def __str__(self) -> str:
        parts = [str(int(self.intercept)), *map(str, self.terms), *map(str, self.groups)]
        return f"{self.response} ~ {' + '.join(parts)}"

    @property
    def all_terms(self) -> tuple[Term, ...]:
        """The terms, then the slopes of the groups, in order of appearance."""
        slopes = (slope for group in self.groups for slope in group.slopes)
        return tuple(dict.fromkeys([*self.terms, *slopes]))

    @property
    def variables(self) -> tuple[str, ...]:
        """Panel variables of the terms and slopes, in order of appearance."""
        factors = (factor for term in self.all_terms for factor in term.factors)
        return tuple(dict.fromkeys(factor.variable for factor in factors))


def parse_formula(text: str) -> Formula:
    """Parse a formula without evaluating anything.

    Two group terms of one factor are merged into one correlated block.

    Parameters
    ----------
    text
        For example ``growth ~ log(x) + (1 + log(x) | cluster)``.

    Returns
    -------
    Formula
        Response, intercept, terms (``a*b`` expanded, repeats dropped) and groups.

    Raises
    ------
    SpecError
        If the text is not in the grammar, or is longer than 4,096 characters, nested deeper
        than 16, of more than 64 terms or of an interaction order above 3.

    Examples
    --------
    >>> formula = parse_formula("growth ~ log(x)*z + (0 + z | cluster:region)")
    >>> str(formula)
    'growth ~ 1 + log(x) + z + log(x):z + (0 + z | region:cluster)'
    >>> formula.variables
    ('x', 'z')
    """
    _check_text(text)
    try:
        tree = _tree(text)
        if not _is(tree, "Binary", "~"):
            raise _refusal(text, "A formula needs a response and a ~.")
        response = _response(tree.left)
        intercept, terms, groups = _sum(tree.right)
    except RecursionError:
        raise _refusal(text, "It is too long or too deeply nested; write it shorter.") from None
    formula = Formula(" ".join(text.split()), response, intercept, terms, groups)
    _check_parts(formula)
    return formula


def _refusal(piece: str, advice: str) -> SpecError:
    return SpecError(f"formula: got {listing([piece])}; expected {_ALLOWED}. {advice}")


def _check_text(text: str) -> None:
    if len(text) > MAX_CHARACTERS:
        raise _refusal(text[:40], f"It has {len(text)} characters; at most {MAX_CHARACTERS} fit.")
    if "~" not in text and text.count("=") == 1 and re.match(r"\s*\w+\s*=", text):
        raise _refusal(" ".join(text.split()), "Write ~ between the response and the terms, not =.")
    if match := _FOREIGN.search(text):
        piece = next(filter(_FOREIGN.search, text.split()), match.group())
        advice = f"Remove {match.group()!r}; a formula runs no code. Rename or add a panel column."
        raise _refusal(piece, advice)
    depth = 0
    for character in text:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth > MAX_DEPTH:
            raise _refusal(text[:40], f"It is nested deeper than {MAX_DEPTH} parentheses.")


def _tree(text: str) -> Any:
    from formulae.parser import ParseError, Parser
    from formulae.scanner import ScanError, Scanner

    if match := re.search(r"\*\s*\*|\|\s*\|", text):
        raise _refusal(match.group(), "Write every interaction and every group term out.")
    try:
        parser = Parser(Scanner(text).scan(add_intercept=False))
        tree = parser.parse()
    except (ScanError, ParseError, ValueError) as error:
        raise _refusal(text, f"The parser says: {error}") from None
    if not parser.at_end():
        rest = " ".join(token.lexeme for token in parser.tokens[parser.current : -1])
        raise _refusal(rest, "Put an operator before it, and parentheses around (terms | group).")
    return tree


def _is(node: Any, kind: str, operator: str = "") -> bool:
    return type(node).__name__ == kind and (not operator or node.operator.lexeme == operator)


def _show(node: Any) -> str:
    match type(node).__name__:
        case "Binary":
            return f"{_show(node.left)} {node.operator.lexeme} {_show(node.right)}"
        case "Unary":
            return f"{node.operator.lexeme}{_show(node.right)}"
        case "Call":
            return f"{_show(node.callee)}({', '.join(map(_show, node.args))})"
        case "Grouping":
            return f"({_show(node.expression)})"
        case "Variable":
            return str(node.name.lexeme)
        case _:
            return str(getattr(node, "value", type(node).__name__))


def _response(node: Any) -> str:
    if not _is(node, "Variable"):
        raise _refusal(_show(node), "The response is one name: add a transformed panel column.")
    name = str(node.name.lexeme)
    if name in DIMS:
        raise _refusal(name, "A dimension of the panel cannot be the response.")
    return name


def _summands(node: Any) -> Iterator[tuple[Any, bool]]:
    """Yield the pieces of a sum in order, each with whether it is subtracted."""
    stack = [(node, False)]
    while stack:
        piece, removed = stack.pop()
        if _is(piece, "Binary", "+") or _is(piece, "Binary", "-"):
            stack += [(piece.right, piece.operator.lexeme == "-"), (piece.left, removed)]
        elif _is(piece, "Grouping") and not removed and not _is(piece.expression, "Binary", "|"):
            stack.append((piece.expression, False))
        else:
            yield piece, removed


def _sum(node: Any) -> tuple[bool, tuple[Term, ...], tuple[Group, ...]]:
    intercepts: set[bool] = set()
    terms: dict[frozenset[Expression], Term] = {}
    groups: dict[tuple[str, ...], Group] = {}
    for piece, removed in _summands(node):
        intercept = _intercept(piece, removed)
        if intercept is not None:
            intercepts.add(intercept)
        elif removed:
            raise _refusal(f"- {_show(piece)}", "Only the intercept can be removed, by 0 or -1.")
        elif _is(piece, "Grouping"):
            group = _group(piece.expression)
            groups[group.factor] = _merged(groups.get(group.factor), group)
        else:
            for term in _terms(piece):
                terms.setdefault(frozenset(term.factors), term)
    if len(intercepts) == 2:
        raise _refusal(_show(node), "It both keeps and removes the intercept; state one.")
    return intercepts != {False}, tuple(terms.values()), tuple(groups.values())


def _intercept(node: Any, removed: bool) -> bool | None:
    if _is(node, "Unary", "-") and not removed:
        node, removed = node.right, True
    value = node.value if _is(node, "Literal") else None
    if type(value) is not int or value not in ((1,) if removed else (0, 1)):
        return None
    return bool(value) and not removed


def _terms(node: Any) -> list[Term]:
    if _is(node, "Grouping"):
        return _terms(node.expression)
    if _is(node, "Binary"):
        operator = node.operator.lexeme
        if operator not in ("+", ":", "*"):
            raise _refusal(_show(node), f"Remove {operator!r} here.")
        left, right = _terms(node.left), _terms(node.right)
        sums = [] if operator == ":" else left + right
        return sums if operator == "+" else sums + _products(left, right)
    return [Term((_expression(node),))]


def _products(left: list[Term], right: list[Term]) -> list[Term]:
    if len(left) * len(right) > MAX_TERMS:
        raise _refusal(f"{left[0]}:{right[0]}", f"The product has over {MAX_TERMS} terms.")
    products = [Term(a.factors + b.factors) for a in left for b in right]
    for term in products:
        if len(term.factors) > MAX_ORDER:
            raise _refusal(str(term), f"The order of an interaction is at most {MAX_ORDER}.")
        if len(set(term.factors)) < len(term.factors):
            raise _refusal(str(term), "A factor repeats; for a square add a panel column.")
    return products


def _expression(node: Any) -> Expression:
    if _is(node, "Grouping"):
        return _expression(node.expression)
    if _is(node, "Variable"):
        name = str(node.name.lexeme)
        if name in DIMS:
            raise _refusal(name, f"It is a dimension of the panel; write (1 | {name}).")
        return Variable(name)
    if not _is(node, "Call"):
        raise _refusal(_show(node), "Remove it, or add a panel column.")
    function = _show(node.callee)
    if not _is(node.callee, "Variable") or function not in FUNCTIONS:
        known = _SYNONYMS.get(function)
        hint = f" Use {known}." if known else suggestion(function, FUNCTIONS)
        raise _refusal(_show(node), f"There is no function {function[:40]!r}.{hint}")
    if len(node.args) != 1:
        raise _refusal(_show(node), f"{function} takes exactly one argument.")
    return Call(function, _expression(node.args[0]))


def _group(node: Any) -> Group:
    intercept, slopes, nested = _sum(node.left)
    if nested or not (intercept or slopes):
        raise _refusal(f"({_show(node)})", "A group term varies an intercept or slopes.")
    names, factor = [], node.right
    while _is(factor, "Binary", ":"):
        names.append(_show(factor.right))
        factor = factor.left
    names.append(_show(factor))
    for name in names:
        if name not in DIMS:
            raise _refusal(name, f"It is not a dimension to group by.{suggestion(name, DIMS)}")
    if len(set(names)) < len(names):
        raise _refusal(_show(node.right), "A dimension repeats in the group.")
    return Group(tuple(sorted(names, key=DIMS.index)), intercept, slopes)


def _merged(first: Group | None, second: Group) -> Group:
    if first is None:
        return second
    columns = {frozenset(term.factors) for term in first.slopes}
    repeated = any(frozenset(term.factors) in columns for term in second.slopes)
    if repeated or (first.intercept and second.intercept):
        raise _refusal(str(second), f"It repeats a column of {first}; write one group term.")
    return Group(first.factor, first.intercept or second.intercept, first.slopes + second.slopes)


def _check_parts(formula: Formula) -> None:
    count = len(formula.terms) + sum(1 + len(group.slopes) for group in formula.groups)
    if count > MAX_TERMS:
        raise _refusal(formula.text, f"It has {count} terms; at most {MAX_TERMS} are allowed.")
    if not (formula.intercept or count):
        raise _refusal(formula.text, "There is nothing to estimate; add a term.")
    if formula.response in formula.variables:
        advice = 'A lag of the response is an outcome process: set [spatial] outcome = "sar".'
        raise _refusal(formula.response, advice)
