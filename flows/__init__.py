"""Order: the only code that sees the whole graph of an experiment."""
