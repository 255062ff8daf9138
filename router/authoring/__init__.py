"""What the corpus is made of and what is wrong with it."""
