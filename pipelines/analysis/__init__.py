"""Answers from a result table as lazy polars frames.

from pipelines import analysis as a
a.table("s3://shop/attributes").coverage().collect()
"""

from pipelines.analysis.catalog import Catalog
from pipelines.analysis.errors import QueryError
from pipelines.analysis.results import ResultTable, drift, new_values, table

__all__ = ["Catalog", "QueryError", "ResultTable", "drift", "new_values", "table"]
