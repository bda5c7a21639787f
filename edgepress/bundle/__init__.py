"""Bundle: a model with everything its deployment needs, and the check that it runs on a device as it does here."""
