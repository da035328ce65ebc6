"""How a program outside the daemon reaches a cluster: its state store, and the service of its nodes."""
