"""A query sees the result table and nothing else of the machine or the network."""

import pytest

from pipelines import analysis as a
from pipelines.lake.frames import collect


@pytest.fixture(scope="module")
def table(tmp_path_factory, make_rows, publish):
    return a.table(publish(tmp_path_factory.mktemp("table"), make_rows(0), "r1"))


FILE_QUERIES = (
    "SELECT * FROM read_csv('{0}')",
    "SELECT * FROM READ_CSV('{0}')",
    "SELECT * FROM read_csv ( '{0}' )",
    "SELECT * FROM read_csv/* */('{0}')",
    "SELECT * FROM \"read_csv\"('{0}')",
    "SELECT * FROM `read_csv`('{0}')",
    "SELECT * FROM polars.read_csv('{0}')",
    "SELECT * FROM read_csv('{0}', ',')",
    "SELECT * FROM scan_csv('{0}')",
    "SELECT * FROM read_parquet('{0}')",
    "SELECT * FROM read_ipc('{0}')",
    "SELECT * FROM read_json('{0}')",
    "SELECT * FROM read_ndjson('{0}')",
    "SELECT * FROM read_delta('{0}')",
    "SELECT * FROM '{0}'",
    'SELECT * FROM "{0}"',
    "SELECT * FROM glob('{0}')",
    "FROM read_csv('{0}')",
    "TABLE read_csv('{0}')",
    "WITH x AS (SELECT * FROM read_csv('{0}')) SELECT * FROM x",
    "SELECT * FROM values WHERE value IN (SELECT secret FROM read_csv('{0}'))",
    "SELECT value FROM values UNION ALL SELECT secret FROM read_csv('{0}')",
    "SELECT v.value FROM values v CROSS JOIN read_csv('{0}') r",
    "SELECT (SELECT secret FROM read_csv('{0}') LIMIT 1) FROM values",
    "SELECT * FROM (SELECT * FROM read_csv('{0}'))",
    "CREATE TABLE x AS SELECT * FROM read_csv('{0}')",
    "SELECT 'it''s' AS a, * FROM read_csv('{0}')",
    "SELECT 'a\\' AS a, * FROM read_csv('{0}') -- '",
    "EXPLAIN SELECT * FROM read_csv('{0}')",
    "SELECT * FROM values; SELECT * FROM read_csv('{0}')",
    "SELECT * FROM read_csv('file://{0}')",
    "SELECT * FROM read_parquet('hf://datasets/x/y/z.parquet')",
    "SELECT * FROM read_parquet('s3://bucket/x.parquet')",
    "SELECT * FROM read_parquet('http://127.0.0.1:1/x.parquet')",
    "COPY values TO '{0}'",
    "COPY values FROM '{0}'",
    "SELECT * INTO OUTFILE '{0}' FROM values",
    "SELECT * FROM values INTO '{0}'",
    "INSERT OVERWRITE DIRECTORY '{0}' SELECT * FROM values",
    "LOAD DATA INPATH '{0}' INTO TABLE values",
    "ATTACH '{0}' AS other",
    "INSTALL httpfs",
)


@pytest.mark.parametrize("query", FILE_QUERIES)
def test_sql_reads_and_writes_no_file(table, tmp_path, query):
    secret = tmp_path / "s.csv"
    secret.write_text("secret\nhunter2\n")
    with pytest.raises(a.QueryError) as raised:
        collect(table.sql(query.replace("{0}", str(secret))))
    assert "hunter2" not in str(raised.value)
    assert list(tmp_path.glob("*.csv")) == [secret]
    assert secret.read_text() == "secret\nhunter2\n"


def test_sql_that_changes_tables_changes_nothing(table):
    before = table.summary().collect()
    for query in ("DELETE FROM values", "TRUNCATE TABLE values", "DROP TABLE values"):
        table.sql(query)
    assert table.summary().collect().equals(before)
