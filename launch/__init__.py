"""How it is run: configuration, presets, the curriculum loop, checkpoints and the command line."""
