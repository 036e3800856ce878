"""Who the caller is, what they may see, what may leave, what is recorded."""
