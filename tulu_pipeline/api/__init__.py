"""Servers that speak OpenAI's protocol: asked patiently, within a budget, and never twice for the same."""
