"""Why a row is degraded or quarantined, a picture or file unusable: the one enumerated list."""

from enum import StrEnum


class Reason(StrEnum):
    """Stored in the `reason` columns; MEANINGS explains each."""

    NO_PICTURE = "no_picture"
    UNDECODABLE_PICTURE = "undecodable_picture"
    PICTURE_TOO_LARGE = "picture_too_large"
    UNREACHABLE_PICTURE = "unreachable_picture"
    REFUSED_ADDRESS = "refused_address"
    EMPTY_TEXT = "empty_text"
    TEXT_TOO_LONG = "text_too_long"
    INVALID_TEXT = "invalid_text"
    DUPLICATE_ID = "duplicate_id"
    NULL_ID = "null_id"
    WRONG_TYPE = "wrong_type"
    UNREADABLE_ROW_GROUP = "unreadable_row_group"
    UNREADABLE_FILE = "unreadable_file"
    POISON_ROW = "poison_row"
    OUT_OF_MEMORY = "out_of_memory"


# A picture that was not read may be there another day, or be allowed by then.
NOT_FETCHED = frozenset({Reason.UNREACHABLE_PICTURE, Reason.REFUSED_ADDRESS})

MEANINGS: dict[Reason, str] = {
    Reason.NO_PICTURE: "The product names no picture, so only its text was read.",
    Reason.UNDECODABLE_PICTURE: "The picture's bytes are not an image that can be decoded.",
    Reason.PICTURE_TOO_LARGE: "The picture has more bytes or pixels than the limit.",
    Reason.UNREACHABLE_PICTURE: "The picture's address could not be read.",
    Reason.REFUSED_ADDRESS: "The picture's address leads to where no picture may be read from.",
    Reason.EMPTY_TEXT: "No text column holds a character to read.",
    Reason.TEXT_TOO_LONG: "A text column has more characters than the limit.",
    Reason.INVALID_TEXT: "A text column is not valid Unicode text.",
    Reason.DUPLICATE_ID: "Another row with the same product id was kept instead.",
    Reason.NULL_ID: "The row has no product id.",
    Reason.WRONG_TYPE: "A column has a type that cannot be read as the expected one.",
    Reason.UNREADABLE_ROW_GROUP: "One row group of the file could not be read.",
    Reason.UNREADABLE_FILE: "The file could not be read.",
    Reason.POISON_ROW: "The row killed the process that worked on it.",
    Reason.OUT_OF_MEMORY: "The row alone needs more memory than the worker has.",
}
