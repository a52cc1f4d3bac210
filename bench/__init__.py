"""The budgets of the design, measured on a real API server beside the bare minimum. `python -m bench --help`.

Nothing here asserts a time: it prints what it saw. Method and figures: docs/reference/benchmarks.md.
"""
