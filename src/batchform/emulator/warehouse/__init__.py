"""BigQuery on loopback: REST and Storage Read API over DuckDB and Parquet. Loaded when somebody asks for it."""
