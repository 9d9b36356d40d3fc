"""OCFL storage roots: layouts, inventories, and what makes an object or a root valid. Source: OCFL 1.1."""
