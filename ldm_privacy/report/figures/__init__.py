"""Pictures by matplotlib, one family a file."""
