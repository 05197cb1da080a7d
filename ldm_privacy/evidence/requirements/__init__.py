"""Requirements of standards and authorities, and what an audit says of each. One requirement is one file."""
