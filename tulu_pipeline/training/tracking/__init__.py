"""What a finetuning says while it runs: its record, and what shows it."""
