"""Pipelines of diffusers that can be opened: one family, one file."""
