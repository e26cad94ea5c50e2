"""The files of a run: checkpoints, rewards and logs, and checks of their integrity."""
