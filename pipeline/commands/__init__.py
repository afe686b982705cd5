"""The commands of `ladder`, one file each."""
