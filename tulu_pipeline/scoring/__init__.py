"""Pure functions that benchmarks compose into scores."""
