"""What a finetuning leaves on disk: resumable state, its conversion to other ranks, the exported checkpoint."""
