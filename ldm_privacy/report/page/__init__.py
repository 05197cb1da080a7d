"""A report as one HTML file: its blocks, and how they become a page."""
