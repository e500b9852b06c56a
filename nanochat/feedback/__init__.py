"""From what people say about answers to training data, and to a checkpoint that has learned it."""
