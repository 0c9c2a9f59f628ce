"""Numbers in, pages and figures out; the TRIPOD+AI page."""
