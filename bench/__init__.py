"""Measurements: `python -m bench [ingest|retrieve|footprint|quality ...]`."""
