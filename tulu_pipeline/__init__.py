"""Domain: the library behind the stages, importable with no GPU, no Prefect and no network."""
