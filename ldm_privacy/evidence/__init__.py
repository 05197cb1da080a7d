"""Evidence from an audit: null distributions, controls, exposure, verdicts, comparisons. No denoiser passes."""
