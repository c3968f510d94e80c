"""The errors that name what a user gave us; anything else that rises is a defect of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ulsdram_core.reasons import Reason


class UlsdramError(ValueError):
    """Something we were given cannot be used; the message says what was found and what to do."""


class PictureError(UlsdramError):
    """A picture cannot be used; `reason` says why in one of the enumerated words."""

    def __init__(self, message: str, *, reason: Reason) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive the default pickling of exceptions.
        return _restore_picture_error, (str(self), self.reason)


class CheckpointError(UlsdramError):
    """A weights file or model directory is missing, unsafe, or does not fit the model."""


class LabelError(UlsdramError):
    """A label set, gold span or label file contradicts itself or the text it describes."""


def _restore_picture_error(message: str, reason: Reason) -> PictureError:
    return PictureError(message, reason=reason)
