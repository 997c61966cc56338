"""Continual-learning methods, one short file each, composed from the five hooks of `reconverge.policy.hooks`."""
