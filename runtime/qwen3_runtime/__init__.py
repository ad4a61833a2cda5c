"""What every generated engine shares at run time."""
