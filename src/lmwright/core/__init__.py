"""What every stage shares: errors, artifacts, batches, results, devices, progress."""
