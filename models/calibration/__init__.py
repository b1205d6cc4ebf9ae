"""Uncertainty-binned calibration: signed integers in, frozen readings with one threshold per uncertainty level out.

`grid` keeps the integers, `platt` and `isotonic` fit a rate, `beta` gives intervals, `levels` merges uncertainty
bins, `threshold` chooses the cut, `reading` puts them together, `evaluation` scores an epoch against its reading.
"""
