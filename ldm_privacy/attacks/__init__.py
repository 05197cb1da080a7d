"""Membership-inference attacks on a denoiser: one file per published method, one function that runs, masks and sums them."""
