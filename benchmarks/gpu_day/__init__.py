"""What `python -m benchmarks.gpu` works down, item by item."""
