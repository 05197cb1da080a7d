"""Sections of an evaluation's page. One section is one file.

A section is a function of the evidence and its `Context`, registered under a name, `@SECTIONS.register("attacks")`; it
returns a `Section`, whose `place` puts it in order, or None where there is nothing to say.
"""
