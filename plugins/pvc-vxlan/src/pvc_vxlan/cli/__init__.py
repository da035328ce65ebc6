"""Commands of the plugin: they run on machines that have neither FRR nor nft."""
