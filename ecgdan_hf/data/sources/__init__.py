"""One dataset in, one table of records out: a module for each source."""
