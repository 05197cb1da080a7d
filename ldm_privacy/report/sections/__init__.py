"""Sections of an evaluation's page. One section is one file.

A section is a function of an `Evaluation`, registered under a name, `@SECTIONS.register("attacks")`, which is also its anchor
in the page; it returns a `Section`, whose `place` puts it in order, or None where there is nothing to say.
"""
