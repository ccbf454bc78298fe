"""Cloud Storage: the ledger, sources, destinations and saved plans at gs://. Imported only by projects that use it."""
