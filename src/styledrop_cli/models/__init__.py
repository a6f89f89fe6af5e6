"""The networks, pure torch: tensors in, tensors out."""
