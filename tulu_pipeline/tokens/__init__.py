"""Conversations to token ids and loss masks: tokenizers, encoding, shards, what they hold."""
