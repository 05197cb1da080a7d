"""Tables and files of an audit for people: the terminal, metrics.json, report.html, figures."""
