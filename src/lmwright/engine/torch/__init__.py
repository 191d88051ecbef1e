"""The backend on torch: decoders, encoders, encoder-decoders."""
