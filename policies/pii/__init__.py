"""Finding personal data in text, without a network, a model or a large library."""
