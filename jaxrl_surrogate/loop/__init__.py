"""The run: rollouts and updates in turn, evaluation, re-execution."""
