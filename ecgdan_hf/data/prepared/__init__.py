"""Records prepared for a network and cached in Arrow, or streamed."""
