"""All that is audited, behind one door: codec, noise predictor, conditions, and the facts of what it is."""
