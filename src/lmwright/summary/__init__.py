"""What a model is: its parameters, memory, tokenizer, chat and origin, before it is run."""
