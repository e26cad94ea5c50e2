"""The training loop: rollout, verification, update, evaluation and re-execution."""
