"""What is remembered: sources of replay windows for earlier tasks."""
