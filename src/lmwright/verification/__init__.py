"""Are two models the same? The same token ids through both, and what each says about the next."""
