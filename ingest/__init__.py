"""From a source's change to rows in the index."""
