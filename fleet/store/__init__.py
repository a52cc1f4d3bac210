"""What must survive a restart: releases, what was applied, pauses, tokens, events; in one SQLite database.

Values in, values out, over the small `Database` seam; SQL stays portable. Nothing here decides anything.
"""
