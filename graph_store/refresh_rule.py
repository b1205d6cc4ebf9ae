"""What counts as a true pair of a period: the rule that the snapshot keeps by and the evaluation counts by."""

EVIDENCE = 3.0
"""Customers in the period."""

LIFT = 5.0
"""count * total / (row sum of its source * row sum of its target), all of the period."""
