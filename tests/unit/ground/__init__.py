"""The modules directly in `fleet/`."""
