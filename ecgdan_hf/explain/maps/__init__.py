"""Attribution maps as pure functions."""
