"""How fast, and how much memory, against the naive way in the same run: `python -m benchmarks.run`."""
