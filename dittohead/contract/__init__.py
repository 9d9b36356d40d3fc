"""What workers and sources implement, and the values their options are made of; no implementation."""
