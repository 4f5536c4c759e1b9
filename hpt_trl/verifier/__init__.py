"""Answer verification: compare the last box of a completion with the gold answer, in killable worker processes."""
