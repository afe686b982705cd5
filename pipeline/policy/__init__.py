"""The networks. They know tensors, not NetHack."""
