"""What travels with the weights: networks, losses, signal contract. Flat, for Hub code is copied file by file."""
