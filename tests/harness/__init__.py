"""Parts that tests, demo and bench share; nothing here is a test."""
