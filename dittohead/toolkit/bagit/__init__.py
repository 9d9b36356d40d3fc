"""BagIt bags: the lines of their manifests, and how a bag is made. Source: RFC 8493."""
