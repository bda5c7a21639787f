"""Surgery: channels cut out of a model, exactly, and refitted into the next layer."""
