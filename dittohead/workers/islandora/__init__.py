"""Islandora 2: nodes, media and terms over Drupal's REST resources, each created once and only once."""
