"""Images, their members / held-out / public split, and where they come from."""
