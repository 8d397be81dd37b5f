"""What `detect` does beside the network: what is kept when it ends early."""
