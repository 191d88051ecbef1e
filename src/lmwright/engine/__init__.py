"""Running a model: requests, batches, sampling. Torch only behind the backend."""
