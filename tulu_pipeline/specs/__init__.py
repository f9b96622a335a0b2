"""The nouns, types only: dataset, mixture, model, recipe, benchmark, experiment."""
