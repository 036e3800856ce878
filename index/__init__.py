"""The one description of a document, a chunk, an embedding, and the places they live."""
