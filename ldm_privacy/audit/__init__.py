"""The audit of a denoiser: attacks with masks on members and held-out samples, and the numbers that come of it."""
