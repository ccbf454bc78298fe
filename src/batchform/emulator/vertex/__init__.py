"""Vertex AI: batchPredictionJobs over Cloud Storage and BigQuery, and the synchronous calls. See docs/emulator.md."""
