"""A reviewer's answer about one value, as queues and corrections tables write it."""

from __future__ import annotations

from dataclasses import dataclass

from ulsdram_core.errors import UlsdramError

_ANSWERS = {
    **dict.fromkeys(("yes", "y", "true", "1", "\u662f", "\u5bf9"), True),
    **dict.fromkeys(("no", "n", "false", "0", "\u5426", "\u9519"), False),
}


class ReviewError(UlsdramError):
    """What cannot be read as decisions."""


@dataclass(frozen=True, slots=True)
class Decision:
    """`value` is right for `attribute`, or it is not and perhaps another one is."""

    product_id: str
    attribute: str
    value: str
    is_correct: bool
    right_value: str | None = None

    @property
    def identity(self) -> tuple[str, str, str]:
        """Which value the answer is about."""
        return self.product_id, self.attribute, self.value

    @property
    def wanted(self) -> str | None:
        """The value that the product should have for this attribute, if the reviewer named one."""
        return self.value if self.is_correct else self.right_value


def parse_decision(
    identity: tuple[str, str, str], *, said: str, right: str, where: str
) -> Decision | None:
    """Return the answer of one row, None if there is none yet.

    A right value alone says that the given one is wrong, unless both are the same; without a
    given one, it says that the right value is missing.
    """
    if not said and not right:
        return None
    product_id, attribute, value = identity
    if not (product_id and attribute and (value or right)):
        raise ReviewError(f"{where} lacks product_id, attribute or value; fill it or drop the row")
    is_correct = _ANSWERS.get(said.lower()) if said else right == value
    if is_correct is None:
        raise ReviewError(f"{where} has correct={said!r}, expected yes or no; correct the cell")
    if not value:
        return Decision(product_id, attribute, right, is_correct=True)
    if is_correct and right and folded(right) != folded(value):
        raise ReviewError(
            f"{where} says {value!r} is correct and {right!r} is right; answer no or drop one"
        )
    if not is_correct and right == value:
        raise ReviewError(f"{where} says {value!r} is wrong and right; answer yes or change one")
    return Decision(product_id, attribute, value, is_correct, None if is_correct else right or None)


def folded(value: str) -> str:
    """Return what equal values share: neither case nor white space tells them apart."""
    return " ".join(value.casefold().split())
