"""What a finetuning takes, told before it is started: steps, tokens, memory, operations, time."""
