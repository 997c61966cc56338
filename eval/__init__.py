"""What is measured: rollouts, the success matrix, metrics, recovery, videos and the report."""
