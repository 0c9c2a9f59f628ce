"""Publishing: convert the authors' checkpoints, bundle our own for the Hub, write their cards, push them."""
