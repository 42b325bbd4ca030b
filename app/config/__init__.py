"""What the operator wants: the environment and one YAML file, checked whole, then frozen. No socket is opened."""
