"""CSV files become Parquet once per content, so that everything after reads one format."""

import io
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from pipelines.lake.storage import Storage
from pipelines.nightly.plan.rows import RowSettings

BAD_LINES_KEY = b"ulsdram.bad_lines"
_ROWS_PER_GROUP = 10_000


@dataclass(frozen=True, slots=True)
class CsvCopy:
    """The Parquet copy and the numbers of the lines that had too few or too many fields."""

    place: Storage
    bad_lines: tuple[int, ...]


def copy_csv(source: Storage, target: Storage, settings: RowSettings) -> CsvCopy:
    """Write the wanted columns of a CSV file with a header line to `target`, unless it is there."""
    if not target.exists():
        _convert(source, target, settings)
    metadata = pq.read_metadata(target.path, filesystem=target.arrow).metadata or {}
    numbers = metadata.get(BAD_LINES_KEY, b"").split()
    return CsvCopy(target, tuple(int(number) for number in numbers))


def _convert(source: Storage, target: Storage, settings: RowSettings) -> None:
    bad_lines: list[int] = []

    def skip(row: pacsv.InvalidRow) -> str:
        bad_lines.append(row.number)
        return "skip"

    wanted = {*settings.key_columns(), *settings.content_columns()}
    sink = io.BytesIO()
    with source.arrow.open_input_stream(source.path, compression="detect") as stream:
        reader = pacsv.open_csv(
            stream,
            # line numbers are only known to a single-threaded reader
            read_options=pacsv.ReadOptions(use_threads=False),
            parse_options=pacsv.ParseOptions(invalid_row_handler=skip, newlines_in_values=True),
            # every column as bytes: types and UTF-8 are judged row by row later
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(wanted, pa.binary()),
                check_utf8=False,
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
        names = [name for name in reader.schema.names if name in wanted]
        schema = pa.schema([(name, pa.binary()) for name in names])
        with pq.ParquetWriter(sink, schema) as writer:
            for batch in reader:
                table = pa.Table.from_batches([batch]).select(names)
                writer.write_table(table, row_group_size=_ROWS_PER_GROUP)
            numbers = " ".join(map(str, bad_lines)).encode()
            writer.add_key_value_metadata({BAD_LINES_KEY: numbers})
    target.write_bytes(sink.getvalue())
