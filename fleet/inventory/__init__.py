"""The documents of the inventory directory: what they may say, where they are wrong, and which targets they make.

Lives here: models, reading with positions, checks across documents, targeting, live reload. Does not live here:
anything that talks to Git or to clusters, or that decides what a change of the inventory does to them.
"""
