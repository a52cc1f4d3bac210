"""What must survive, on real SQLite files."""
