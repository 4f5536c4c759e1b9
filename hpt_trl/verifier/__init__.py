"""Is an answer right? The last box of a completion, compared with the gold answer in processes that can be killed."""
