"""A boolean expression over a table's columns, as a user types it: read, never run.

The text is parsed into a tree and only what is named here has a meaning: columns, constants,
comparisons, `& | ~ + - * / %` and the methods below. There is no other name to reach anything by.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

import polars as pl

MAX_CHARACTERS = 2000
MAX_DEPTH = 40

_METHODS = frozenset(
    {
        *("is_null", "is_not_null", "fill_null", "is_in", "is_between", "is_nan", "is_finite"),
        *("is_duplicated", "is_unique", "is_first_distinct", "eq_missing", "ne_missing"),
        *("abs", "mean", "median", "std", "quantile", "sum", "min", "max", "count", "n_unique"),
        *("any", "all", "first", "last", "sort", "slice", "rank", "over", "not_"),
    }
)
_IN_NAMESPACES: Mapping[str, frozenset[str]] = {
    "str": frozenset(
        {
            *("contains", "starts_with", "ends_with", "len_chars", "len_bytes", "to_lowercase"),
            *("to_uppercase", "strip_chars", "count_matches"),
        }
    ),
    "list": frozenset({"len", "contains", "first", "last", "n_unique", "any", "all"}),
    "struct": frozenset({"field"}),
    "dt": frozenset({"year", "month", "day", "weekday", "hour", "date"}),
    "bin": frozenset({"size", "starts_with"}),
}
_BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
}
_COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def parse_expression(text: str) -> pl.Expr:
    """Return the polars expression that a text such as `col("price") > 10` stands for."""
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"found {len(text)} characters, expected at most {MAX_CHARACTERS}")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        reason = getattr(error, "msg", None) or str(error) or type(error).__name__
        raise ValueError(f'{reason}; write such as col("price") > 10') from error
    found = _read(tree.body, MAX_DEPTH)
    if not isinstance(found, pl.Expr):
        raise ValueError(f'found the constant {found!r}, expected such as col("price") > 10')
    return found


def _read(node: ast.expr, depth: int) -> Any:
    """Return an expression, or a constant where one may stand."""
    if depth == 0:
        raise ValueError(f"more than {MAX_DEPTH} levels; write a simpler expression")
    reader = _READERS.get(type(node))
    if reader is None:
        raise _refused(node)
    return reader(node, depth - 1)


def _constant(node: ast.Constant, _depth: int) -> Any:
    value = node.value
    if not isinstance(value, bool | int | float | str):
        raise _refused(node)
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError(f"found the number {ast.unparse(node)[:30]}, expected one of 64 bits")
    return value


def _constants(node: ast.List | ast.Tuple, depth: int) -> list[Any]:
    for element in node.elts:
        if not isinstance(element, ast.Constant | ast.UnaryOp):
            raise _refused(element)
    return [_scalar(_read(element, depth), element) for element in node.elts]


def _scalar(value: Any, node: ast.expr) -> Any:
    if isinstance(value, pl.Expr):
        raise _refused(node)
    return value


def _unary(node: ast.UnaryOp, depth: int) -> Any:
    operand = _read(node.operand, depth)
    if isinstance(node.op, ast.USub) and not isinstance(operand, str | list):
        return -operand
    if isinstance(node.op, ast.Invert) and isinstance(operand, pl.Expr):
        return ~operand
    raise _refused(node)


def _binary(node: ast.BinOp, depth: int) -> pl.Expr:
    apply = _BINARY.get(type(node.op))
    left, right = _read(node.left, depth), _read(node.right, depth)
    if apply is None or not _is_of_columns(left, right):
        raise _refused(node)
    return _expression(apply(left, right))


def _comparison(node: ast.Compare, depth: int) -> pl.Expr:
    apply = _COMPARISONS.get(type(node.ops[0]))
    left, right = _read(node.left, depth), _read(node.comparators[0], depth)
    if apply is None or len(node.ops) > 1 or not _is_of_columns(left, right):
        raise _refused(node)
    return _expression(apply(left, right))


def _is_of_columns(*sides: Any) -> bool:
    """Constants are never computed with: 9 ** 9 ** 9 and "a" * 10 ** 9 have no meaning here."""
    return any(isinstance(side, pl.Expr) for side in sides) and not any(
        isinstance(side, list) for side in sides
    )


def _call(node: ast.Call, depth: int) -> pl.Expr:
    if any(keyword.arg is None for keyword in node.keywords):
        raise _refused(node)
    positional = [_read(item, depth) for item in node.args]
    named = {str(item.arg): _read(item.value, depth) for item in node.keywords}
    try:
        return _expression(_function(node, depth)(*positional, **named))
    except TypeError as error:
        raise ValueError(f"{ast.unparse(node)[:60]}: {error}") from error


def _function(node: ast.Call, depth: int) -> Callable[..., Any]:
    function = node.func
    if isinstance(function, ast.Name) and function.id == "col":
        return _column
    if not isinstance(function, ast.Attribute):
        raise _refused(node)
    name, owner = function.attr, function.value
    if isinstance(owner, ast.Name) and (owner.id, name) == ("pl", "col"):
        return _column
    if isinstance(owner, ast.Attribute) and name in _IN_NAMESPACES.get(owner.attr, ()):
        target = getattr(_owner(owner.value, depth), owner.attr)
    elif name in _METHODS:
        target = _owner(owner, depth)
    else:
        raise _refused(node)
    return getattr(target, name)


def _owner(node: ast.expr, depth: int) -> pl.Expr:
    return _expression(_read(node, depth))


def _column(name: Any = None) -> pl.Expr:
    if not isinstance(name, str):
        raise ValueError(f"found col({name!r}), expected the name of one column in quotes")
    return pl.col(name)


def _expression(value: Any) -> pl.Expr:
    if not isinstance(value, pl.Expr):
        raise ValueError(f'found {str(value)[:60]!r}, expected a column such as col("price")')
    return value


def _refused(node: ast.expr) -> ValueError:
    allowed = sorted(_METHODS) + [
        f"{space}.{name}" for space, names in _IN_NAMESPACES.items() for name in sorted(names)
    ]
    return ValueError(
        f'{ast.unparse(node)[:60]!r} has no meaning here; expected col("NAME"), constants, '
        f"== != < <= > >=, & | ~ + - * / % and the methods {', '.join(allowed)}"
    )


_READERS: Mapping[type[ast.expr], Callable[[Any, int], Any]] = {
    ast.Constant: _constant,
    ast.List: _constants,
    ast.Tuple: _constants,
    ast.UnaryOp: _unary,
    ast.BinOp: _binary,
    ast.Compare: _comparison,
    ast.Call: _call,
}
