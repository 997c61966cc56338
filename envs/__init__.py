"""What is acted in: tasks, curricula, simulators, experts, demonstrations. Nothing here imports torch."""
