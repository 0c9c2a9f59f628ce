"""Who is evaluated on whom: held-out folds, repeated cross-validation, zero-shot, subgroups."""
