"""The model card: its template, its results, its checks."""
