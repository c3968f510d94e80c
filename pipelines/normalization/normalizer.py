"""Value normalisation: one table-driven step between an extracted span and what gets counted.

`Normalizer.load()` reads the shipped rules, `Normalizer.load("my/rules.toml")` an edited copy.
The raw `value` is never touched; the result goes to `normalized`.
"""

import csv
import re
import tomllib
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import polars as pl
import pyarrow as pa
from pydantic import Field, ValidationError

from ulsdram_core.errors import UlsdramError
from ulsdram_core.frozen import Frozen

DEFAULT_RULES = Path(__file__).parent / "rules.toml"

_CHAIN_LIMIT = 10
# Curly quotes, primes and dashes become their ASCII twins before NFKC, which would split primes.
_TYPOGRAPHY = str.maketrans(
    {
        "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2032": "'", "\u2033": '"',
        "\u2010": "-", "\u2011": "-", "\u2012": "-", "\u2013": "-", "\u2014": "-", "\u2212": "-",
        "\u200b": "", "\u200d": "", "\ufeff": "", "\u00d7": "x",
    }
)  # fmt: skip
_FRACTION_AFTER_DIGIT = re.compile("(?<=[0-9])(?=[\u00bc-\u00be\u2150-\u215e])")
_NUMBER = r"(?<![\w.,/])(\d+(?:[.,/]\d+)*)"


class MappingError(UlsdramError):
    """A rules file or one of its tables cannot be used."""


class Scope(Frozen):
    """One `[[scope]]` of a rules file; a field left out keeps what an earlier scope said."""

    attributes: tuple[str, ...] = Field(min_length=1)
    """Attribute names or patterns, letter case ignored."""
    case: Literal["lower", "upper", "keep"] | None = None
    """Letter case of the result; the right side of a table is kept as written."""
    plurals: str | None = None
    """CSV of irregular and invariant words, relative to the rules file; "" switches off."""
    units: str | None = None
    """CSV of unit names, relative to the rules file; "" switches off."""
    words: tuple[str, ...] = ()
    """CSVs applied to every word of the value."""
    values: tuple[str, ...] = ()
    """CSVs applied when the whole value is equal."""

    def covers(self, attribute: str) -> bool:
        """Return whether the scope applies to an attribute, given folded."""
        return any(fnmatchcase(attribute, fold(pattern)) for pattern in self.attributes)


class RulesFile(Frozen):
    """A whole rules file."""

    scope: tuple[Scope, ...] = Field(min_length=1)
    """Read top to bottom."""


def fold(text: str) -> str:
    """Return lower case without stray spaces, which is how names and table keys are compared."""
    return " ".join(text.lower().split())


def clean(text: str) -> str:
    """Return NFKC with ASCII quotes and dashes, single spaces, no punctuation at either end."""
    if not text.isascii():
        text = _FRACTION_AFTER_DIGIT.sub(" ", text.translate(_TYPOGRAPHY))
        text = unicodedata.normalize("NFKC", text).replace("\u2044", "/")
        text = text.translate(_TYPOGRAPHY)  # NFKC can yield typographic characters anew
    text = " ".join(text.split())
    return text.rstrip(" .,;:!?\u3001\u3002").lstrip(" ,;:!?\u3001\u3002")


def singular(word: str, irregular: Mapping[str, str]) -> str:
    """Return the singular of an English word by its ending; words of the table win."""
    key = word.lower()
    if key in irregular:
        return irregular[key]
    if not (word.isascii() and word.isalpha()) or len(word) < 4:
        return word
    if key.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if key.endswith(("sses", "shes", "ches", "xes", "zzes")):
        return word[:-2]
    if key.endswith("s") and not key.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


@dataclass(frozen=True, slots=True)
class WordTable:
    """Replaces whole words or phrases, the longest first."""

    pattern: re.Pattern[str]
    target: Mapping[str, str]

    @classmethod
    def of(cls, entries: Mapping[str, str]) -> "WordTable":
        """Compile `from -> to`; targets are closed over the table so that a second pass is idle."""
        longest_first = sorted(entries, key=lambda key: (-len(key), key))
        alternatives = "|".join(re.escape(key) for key in longest_first)
        table = cls(re.compile(rf"(?<!\w)(?:{alternatives})(?!\w)", re.IGNORECASE), entries)
        return cls(table.pattern, {key: settle(to, table.apply) for key, to in entries.items()})

    def apply(self, text: str) -> str:
        """Return the text with every occurrence replaced once."""
        return self.pattern.sub(lambda found: self.target.get(fold(found[0]), found[0]), text)


@dataclass(frozen=True, slots=True)
class UnitTable:
    """Spells units one way behind a number, with one space between (none before a sign: 50%)."""

    pattern: re.Pattern[str]
    target: Mapping[str, str]

    @classmethod
    def of(cls, entries: Mapping[str, str]) -> "UnitTable":
        """Compile `unit name -> unit`."""
        longest_first = sorted(entries, key=lambda key: (-len(key), key))
        # A Latin name must end there (5 m, not 5 men); 100<CJK unit> may run into the next word.
        names = "|".join(
            re.escape(key) + ("(?![A-Za-z0-9])" if key[-1].isascii() and key[-1].isalnum() else "")
            for key in longest_first
        )
        return cls(re.compile(rf"{_NUMBER}[ -]?({names})", re.IGNORECASE), entries)

    def apply(self, text: str) -> str:
        """Return the text with every number of a known unit spelled `number unit`."""
        return self.pattern.sub(self._spell, text)

    def _spell(self, found: re.Match[str]) -> str:
        unit = self.target.get(fold(found[2]), found[2])
        return f"{found[1]} {unit}" if unit[0].isalnum() or unit[0] == "\u00b0" else found[1] + unit


@dataclass(frozen=True, slots=True)
class Rules:
    """What applies to one attribute."""

    case: Literal["lower", "upper", "keep"]
    plurals: Mapping[str, str] | None
    units: UnitTable | None
    words: WordTable | None
    values: Mapping[str, str]

    def spell(self, value: str) -> str:
        """Apply every step but the whole-value table."""
        text = clean(value)
        if self.case != "keep":
            text = text.lower() if self.case == "lower" else text.upper()
            text = text if text.isascii() else clean(text)  # a few letters change form with case
        if self.units is not None:
            text = self.units.apply(text)
        if self.words is not None:
            text = self.words.apply(text)
        if self.plurals is not None and text:
            head, space, last = text.rpartition(" ")
            text = head + space + singular(last, self.plurals)
        return text

    def apply(self, value: str) -> str:
        """Return the normalized value; a value of nothing but punctuation stays as it is."""
        text = self.spell(value)
        return self.values.get(fold(text), text) or value


def settle(text: str, step: Callable[[str], str]) -> str:
    """Apply a step until nothing changes; a table that never settles is refused."""
    start = text
    for _ in range(_CHAIN_LIMIT):
        changed = step(text)
        if changed == text:
            return text
        text = changed
    raise MappingError(
        f"found entries that lead from {start!r} in a circle, expected every chain to end; "
        "remove one of them"
    )


def read_table(path: Path) -> dict[str, str]:
    """Return the `from -> to` of one CSV; `|` separates several froms, `#` opens a comment line."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise MappingError(f"found no readable table {path} ({error}); give a UTF-8 CSV") from error
    if not rows or [cell.strip() for cell in rows[0]] != ["from", "to"]:
        raise MappingError(f"found first line {rows[:1]} in {path}, expected from,to")
    table: dict[str, str] = {}
    for number, row in enumerate(rows[1:], start=2):
        if not row or row[0].startswith("#"):
            continue
        if len(row) != 2 or not row[0].strip() or not row[1].strip():
            raise MappingError(f"found {row} in {path}, row {number}, expected from,to")
        table.update({fold(source): row[1].strip() for source in row[0].split("|") if fold(source)})
    return table


class Normalizer:
    """Normalizes values by the rules of their attribute; cheap to call again for the same pair."""

    def __init__(self, scopes: tuple[Scope, ...], tables: Mapping[str, Mapping[str, str]]) -> None:
        self.scopes = scopes
        self.tables = tables
        self._rules: dict[str, Rules] = {}

    @classmethod
    def load(cls, path: str | Path | None = None) -> "Normalizer":
        """Read a rules file (the shipped one if None) and every table that it names."""
        file = DEFAULT_RULES if path is None else Path(path)
        file = file / "rules.toml" if file.is_dir() else file
        try:
            rules = RulesFile.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise MappingError(f"found no readable rules {file} ({error}); give a TOML") from error
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise MappingError(f"found a wrong {place} in {file}: {first['msg']}") from error
        names = {name for scope in rules.scope for name in _table_names(scope)}
        normalizer = cls(rules.scope, {name: read_table(file.parent / name) for name in names})
        for scope in rules.scope:
            normalizer._assemble([scope])  # a circle in a table is found now, not at night
        return normalizer

    def rules_of(self, attribute: str | None) -> Rules:
        """Return the rules that apply to an attribute, assembled once."""
        name = fold(attribute or "")
        if name not in self._rules:
            covering = [scope for scope in self.scopes if scope.covers(name)]
            self._rules[name] = self._assemble(covering)
        return self._rules[name]

    def normalize(self, value: str, attribute: str | None = None) -> str:
        """Normalize one value; without an attribute, by the rules for every name."""
        return self.rules_of(attribute).apply(value)

    def normalize_series(self, attributes: pl.Series, values: pl.Series) -> pl.Series:
        """Normalize a column: every distinct (attribute, value) once; a null value stays null."""
        pairs = pl.DataFrame(
            {"attribute": attributes.cast(pl.String), "value": values.cast(pl.String)}
        )
        known = pairs.unique()
        normalized = [
            None if value is None else self.normalize(value, attribute)
            for attribute, value in known.iter_rows()
        ]
        known = known.with_columns(pl.Series("normalized", normalized, dtype=pl.String))
        keys = ["attribute", "value"]
        joined = pairs.join(known, on=keys, how="left", nulls_equal=True, maintain_order="left")
        return joined["normalized"]

    def expression(self, attribute: str = "attribute", value: str = "value") -> pl.Expr:
        """Return the same as a polars expression over two columns, for lazy frames."""

        def batch(columns: pl.Series) -> pl.Series:
            return self.normalize_series(
                columns.struct.field(attribute), columns.struct.field(value)
            )

        return pl.struct(attribute, value).map_batches(
            batch, return_dtype=pl.String, is_elementwise=True
        )

    def fill(self, values: pa.Array | pa.ChunkedArray) -> pa.Array:
        """Return `values` of the extractions table (lists of structs) with `normalized` filled."""
        lists = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
        if lists.offset:  # a slice cannot be given a null mask of its own
            lists = lists.take(pa.array(range(len(lists)), type=pa.int64()))
        structs = lists.values
        fields = list(structs.type)
        columns = dict(zip([field.name for field in fields], structs.flatten(), strict=True))
        normalized = self.normalize_series(
            pl.Series(columns["attribute"]), pl.Series(columns["value"])
        )
        kind = structs.type.field("normalized").type
        columns["normalized"] = normalized.to_arrow().cast(kind)
        filled = pa.StructArray.from_arrays(list(columns.values()), fields=fields)
        return type(lists).from_arrays(lists.offsets, filled, type=lists.type, mask=lists.is_null())

    def _assemble(self, scopes: Sequence[Scope]) -> Rules:
        case: Literal["lower", "upper", "keep"] = "keep"
        plurals = units = ""
        words: dict[str, str] = {}
        whole: dict[str, str] = {}
        for scope in scopes:
            case = scope.case or case
            plurals = plurals if scope.plurals is None else scope.plurals
            units = units if scope.units is None else scope.units
            for table in scope.words:
                words.update(self.tables[table])
            for table in scope.values:
                whole.update(self.tables[table])
        rules = Rules(
            case=case,
            plurals=self.tables[plurals] if plurals else None,
            units=UnitTable.of(self.tables[units]) if units else None,
            words=WordTable.of(words) if words else None,
            values={},
        )
        return Rules(rules.case, rules.plurals, rules.units, rules.words, _close(whole, rules))


def _table_names(scope: Scope) -> list[str]:
    return [name for name in (scope.plurals, scope.units, *scope.words, *scope.values) if name]


def _close(table: Mapping[str, str], rules: Rules) -> dict[str, str]:
    """Return whole-value entries by spelled value: chains followed, targets kept."""
    spelled = {fold(rules.spell(source)): target for source, target in table.items()}

    def follow(target: str) -> str:
        return spelled.get(fold(rules.spell(target)), target)

    closed = {source: settle(target, follow) for source, target in spelled.items()}
    return closed | {fold(rules.spell(target)): target for target in closed.values()}
