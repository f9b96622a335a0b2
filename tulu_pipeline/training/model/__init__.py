"""The model as it is trained: weights, adapters, attention, output head, loss, and which kernels compute it."""
