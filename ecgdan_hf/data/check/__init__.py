"""Checks of a folder before training: signals, electrodes, tables, duplicates."""
