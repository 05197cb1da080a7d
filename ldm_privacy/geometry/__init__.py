"""Geometry of the decoder D: influence diag(J^T J), local distortion, and masks. Pure torch; J = dD/dz.

What its functions share is said once, here.

Args:
    decoder: Latent -> image, samples independent of each other (evaluation mode).
    latent: (batch, channels, height, width); D = channels * height * width where dimensions are counted.
    sample_index: (batch,) int. What is random is a function of (seed, sample index, probe) alone, so that a sample's numbers
        don't depend on its batch, and more probes begin with the same ones. Errors name it.
    num_probes, seed: Of the probes.
    vectors_per_pass, probe_batch_size: Vectors that go through the decoder together (memory: that many times as much).

How many samples are decoded together comes from the memory budget, see `jacobian.in_parts`; it changes nothing but rounding.

Returns:
    Numbers on the latent's device, in its precision but at least float32.

Raises:
    UserError: a latent that the decoder can't take, a result that is not finite, a count that is too small.
"""
