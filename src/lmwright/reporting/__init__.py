"""What a run found, for people: the gate's decision, the page and the model card."""
