"""Adapters of a network: their files, their modules' names, and how one is on for a pass."""
