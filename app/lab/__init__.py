"""Offline work: training and measuring what routes, from labelled rows. Nothing here serves requests."""
