"""Programs that try to do harm from within the sandbox, and a stage on which the harm would show."""
