"""Equality of two expressions: exact for rational numbers, to as many digits as they can differ in for the others."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import sympy

SYMPY_ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    NotImplementedError,
    TypeError,
    ValueError,
    RecursionError,
)
"""What sympy raises when it fails, which is expected on arbitrary model output."""

_MAX_DIGITS = 4000
_STEEP = (sympy.functions.elementary.hyperbolic.HyperbolicFunction, sympy.erf)  # as steep as powers
_UNEVALUATED = (sympy.Sum, sympy.Product, sympy.Integral, sympy.Limit, sympy.UnevaluatedExpr)


def equal(left: sympy.Expr, right: sympy.Expr, tolerance: Fraction = Fraction(0)) -> bool:
    """Whether two expressions are equal; False if this cannot be decided.

    Expressions with variables are compared at a few points. Different expressions as short as an answer do not agree
    at random points (Schwartz-Zippel), and a single point where they differ is a proof.

    Args:
        left: an expression.
        right: an expression.
        tolerance: absolute difference that counts as rounding, for constants.
    """
    left, right = _evaluated(left), _evaluated(right)
    if left == right:
        return left.is_finite is not False or left in (sympy.oo, -sympy.oo)
    symbols = _symbols(left, right)
    if not symbols and left.is_Rational and right.is_Rational:
        return abs(left - right) <= tolerance
    digits = 30 + _extent(left) + _extent(right)
    if digits > _MAX_DIGITS:
        return False
    agreed = 0
    for point in _points(symbols):
        left_value, right_value = _value(left, point, digits), _value(right, point, digits)
        if left_value is None or right_value is None:
            continue
        if _close(left_value, right_value, digits, tolerance):
            agreed += 1
        # Off the positive axis, ln(x^2) and 2 ln(x) are on different branches.
        elif (left_value.is_real and right_value.is_real) or all(value > 0 for value in point.values()):
            return False
    return agreed >= min(2, len(symbols) + 1)


def proportional(left: sympy.Expr, right: sympy.Expr) -> bool:
    """Whether two expressions with the same variables differ by a constant factor other than 0."""
    if left.free_symbols != right.free_symbols or not left.free_symbols:
        return False
    digits = 40 + _extent(left) + _extent(right)
    if digits > _MAX_DIGITS:
        return False
    pairs = [(_value(left, point, digits), _value(right, point, digits)) for point in _points(_symbols(left, right))]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    if len(known) < 3 or any(_close(value, sympy.S.Zero, digits, Fraction(0)) for value in known[0]):
        return False
    first_left, first_right = known[0]
    return all(_close(a * first_right, b * first_left, digits - 10, Fraction(0)) for a, b in known)


def _evaluated(expression: sympy.Expr) -> sympy.Expr:
    # The parser leaves sums and powers of numbers as they are written.
    if not expression.free_symbols or expression.has(*_UNEVALUATED):
        return expression.doit()
    return expression


def _symbols(*expressions: sympy.Expr) -> list[sympy.Symbol]:
    return sorted(set().union(*(expression.free_symbols for expression in expressions)), key=str)


def _points(symbols: Sequence[sympy.Symbol]) -> Iterator[dict[sympy.Symbol, sympy.Rational]]:
    """Points of comparison: three with positive coordinates, two with mixed signs."""
    # By name, because sympy distinguishes a real x from a complex x.
    names = sorted({symbol.name for symbol in symbols})
    for row in range(5 if symbols else 1):
        signs = (1, -1) if row > 2 else (1, 1)
        yield {
            symbol: sympy.Rational(
                signs[(row + ord(symbol.name[0])) % 2] * (311 + 97 * row + 61 * names.index(symbol.name)), 173
            )
            for symbol in symbols
        }


def _value(expression: sympy.Expr, point: dict[sympy.Symbol, sympy.Rational], digits: int) -> Any:
    """Value of an expression at a point, to that many digits; None if it is not a finite number."""
    try:
        # Substituted while it is evaluated: the exact value of ((9/5)^(7/3))^(8/3) would take minutes.
        value = expression.evalf(digits, subs=point, maxn=digits + 60)
    except SYMPY_ERRORS:
        return None
    return value if value.is_number and value.is_finite else None


def _close(left: Any, right: Any, digits: int, tolerance: Fraction) -> bool:
    difference, size = abs(left - right).evalf(30), max(abs(left).evalf(30), abs(right).evalf(30), 1)
    return bool(difference <= max(sympy.Float(10) ** (12 - digits) * size, sympy.Rational(tolerance)))


def _extent(expression: sympy.Expr) -> int:
    """Number of digits, before and after the point, in which an expression can differ from a simpler one."""
    total = 0.0
    for part in sympy.preorder_traversal(expression):
        if part.is_Rational:
            total += _logarithm(part)
        elif isinstance(part, sympy.Pow | sympy.exp):
            base, exponent = part.as_base_exp()
            # Variables are at most 10 at the points of comparison.
            size = _logarithm(base) if base.is_Rational else 1.0
            total += size * (sum(map(_magnitude, exponent.atoms(sympy.Number))) or 1.0)
            if exponent.free_symbols:
                total += 10 * size * (sum(map(_magnitude, exponent.atoms(sympy.Number))) or 1.0)
        elif isinstance(part, _STEEP):
            total += sum(map(_magnitude, part.atoms(sympy.Number)))
        elif isinstance(part, sympy.Function) and not isinstance(part, sympy.factorial):
            total += 2 * sum(map(_logarithm, part.atoms(sympy.Rational)))
        elif isinstance(part, sympy.factorial) and part.args[0].is_Integer:
            total += _magnitude(part.args[0]) * _logarithm(part.args[0])
        if total > _MAX_DIGITS:
            return _MAX_DIGITS + 1
    return int(total)


def _magnitude(value: sympy.Number) -> float:
    return min(abs(float(value)), 1e9) if value.is_finite else 0.0


def _logarithm(value: sympy.Rational) -> float:
    return 0.30103 * (abs(value.p).bit_length() + abs(value.q).bit_length()) if value.is_Rational else 1.0
