"""Folders and files that come in through the page."""
