"""Matplotlib without a window, and the colours that every figure shares."""

import matplotlib as mpl

mpl.use("Agg")  # before pyplot looks for a screen
import matplotlib.pyplot as plt

COLORS = ["#4c6a92", "#d1603d", "#3d8f6f", "#8a6bb1", "#b8922e"]

__all__ = ["COLORS", "plt"]
