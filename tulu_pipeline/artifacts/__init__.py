"""The build system: content-addressed artifacts, their store, plan and run. Knows nothing of language models."""
