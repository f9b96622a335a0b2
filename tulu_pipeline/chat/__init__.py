"""Conversations: schema, template, encoding."""
