"""Speed and memory, compared with a naive implementation in the same run: `python -m benchmarks.run`."""
