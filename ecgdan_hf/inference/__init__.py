"""Applies a saved model to many ECGs: loading, covariates, predictions, embeddings."""
