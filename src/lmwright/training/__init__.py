"""Training of any task: batches, loop, `fit`; what a model learns is a `Task` from elsewhere."""
