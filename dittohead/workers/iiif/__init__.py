"""What the public looks at: IIIF Presentation manifests and the page that shows them."""

from __future__ import annotations
