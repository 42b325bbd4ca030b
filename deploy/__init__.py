"""How it is run for real: containers, Kubernetes, systemd, and who watches over it."""
