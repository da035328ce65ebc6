"""How a node's FRR is configured and watched: who has which MAC address of which network is told between nodes by
BGP (RFC 7432).
"""
