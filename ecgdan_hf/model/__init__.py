"""What travels with the weights: networks, losses, and the signal contract. Flat, for the Hub copies files one by one."""
