"""Arguments of the training verbs: dataclasses filled from a recipe and overridden by flags."""
