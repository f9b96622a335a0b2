"""A mixture as a folder that other programs open."""
