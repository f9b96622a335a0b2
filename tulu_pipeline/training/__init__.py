"""Finetuning with DeepSpeed: recipe to checkpoint."""
