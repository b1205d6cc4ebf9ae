"""The commands of `thalweg`, a few a file. They import what is heavy (numba, torch, pyarrow) when they run."""
