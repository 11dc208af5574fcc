"""What the commands share, and the longest of them."""
