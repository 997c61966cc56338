"""What learns: windows, denoisers, diffusion, the policy, the trust region, the learner and its methods."""
