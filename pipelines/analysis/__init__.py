"""Answers from a result table as lazy polars frames.

from pipelines import analysis as a
a.table("s3://shop/attributes").coverage().collect()
"""

from pipelines.analysis.results import ResultTable, drift, new_values, table
from pipelines.lake.catalog import Catalog
from pipelines.lake.errors import QueryError

__all__ = ["Catalog", "QueryError", "ResultTable", "drift", "new_values", "table"]
