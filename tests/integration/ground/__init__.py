"""The ground where it meets the machine."""
