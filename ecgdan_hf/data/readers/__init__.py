"""One file in, one `EcgRecord` out: a module for each format."""
