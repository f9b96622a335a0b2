"""One file per base-model family."""
