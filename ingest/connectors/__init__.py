"""One file for each kind of source. `ingest.sources` knows them all."""
