"""Both stages as LightningModules, and what a step of them needs."""
