"""SCP statements and reports as prompts and texts."""
