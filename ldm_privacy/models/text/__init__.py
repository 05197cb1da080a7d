"""Text encoders: captions as what a denoiser attends to."""
