"""The last checkpoint of several that is within limits."""
