"""Quantities looked at while a model trains, and from which look on they show that it memorizes."""
