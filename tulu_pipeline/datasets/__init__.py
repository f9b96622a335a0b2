"""One file per instruction dataset."""
