"""Conversations: schema, files, the paper's chat format, randomness that belongs to a row."""
