"""Analysis of objectives, and evidence that training ascends them."""
