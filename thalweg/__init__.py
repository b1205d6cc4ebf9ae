"""Thalweg: recommendations from a shop's event stream, from state that is seconds old."""

__version__ = "0.1.0"
