"""Continual-learning methods, one short file each, composed from the hooks of `reconverge.policy.hooks`."""
