"""The state tree: protocol, codec, keys, and two implementations that pass one contract suite."""
