"""Evaluate weights on places that they were not trained on, and compare them with others.

`evaluation` and `gate` run nets. What only reads stored evaluations (`model_comparison` and what it imports) is free of
torch, so nothing is imported here.
"""
