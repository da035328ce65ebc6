"""The firewall of a network, in its gateway's namespace: one table of nftables, ``inet pvc``."""
