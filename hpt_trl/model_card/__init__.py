"""The facts of a run, and the model card written from them."""
