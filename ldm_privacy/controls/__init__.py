"""Controls: what tells members from held-out without the denoiser that is audited. One control is one file.

A control is a function of a `Case`, registered under a name, `@CONTROLS.register("latent_norm")`; it returns what it found:
a `Finding`, several, or None where there is nothing to look at.
"""
