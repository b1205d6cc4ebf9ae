"""Learning while labels are still open: label policies, and the life table their beliefs come from."""
