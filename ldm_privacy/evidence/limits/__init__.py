"""Limits that an audit is held against. One limit is one file."""
