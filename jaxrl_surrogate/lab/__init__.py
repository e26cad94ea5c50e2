"""Analysis: what an objective is, and evidence that training follows it."""
