"""Tensors of model folders: read one by one, and what is computed from them."""
